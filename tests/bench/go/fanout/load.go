package main

import (
	"log"
	"syscall"
	"time"

	"penstock/bench/report"
	"penstock/bench/stamp"
)

// perTurn is how many connections are opened between two looks at those that are open: what arrives
// there meanwhile is seen late by a millisecond at most.
const perTurn = 16

// load is all clients, in one thread: epoll and raw sockets.
type load struct {
	address   syscall.SockaddrInet4
	request   []byte
	poll      int
	publisher *publisher // where the server does not publish itself
	clients   []client
	allowed   int // clients that may connect by now
	atOnce    int // clients that may be without an answer at the same time
	opened    int // clients that have tried
	answered  int
	begun     int // clients that have had an event
	lost      int
	reason    string // of the first loss

	published []int64 // when, by the event's number, as the clients learnt it; 0 where none has

	measuring bool
	delivered int64
	bytes     int64
	late      report.Histogram // since the event was published
	overdue   report.Histogram // since it was due
	now       int64            // when the data that is being looked at was read
}

func (l *load) pending() int { return l.opened - l.answered - l.lost }

// connect begins to open the next client's connection.
func (l *load) connect() {
	c := &l.clients[l.opened]
	l.opened++
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		l.lose(c, "socket: "+err.Error())
		return
	}
	c.fd, c.open = int32(fd), true
	event := syscall.EpollEvent{Events: syscall.EPOLLOUT, Fd: int32(l.opened - 1)}
	if err := syscall.Connect(fd, &l.address); err != nil && err != syscall.EINPROGRESS {
		l.lose(c, "connect: "+err.Error())
	} else if err := syscall.EpollCtl(l.poll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		l.lose(c, "epoll: "+err.Error())
	}
}

// ask sends the request, now that the connection is open.
func (l *load) ask(index int32) {
	c := &l.clients[index]
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: index}
	if _, err := syscall.Write(int(c.fd), l.request); err != nil {
		l.lose(c, "connect: "+err.Error())
	} else if err := syscall.EpollCtl(l.poll, syscall.EPOLL_CTL_MOD, int(c.fd), &event); err != nil {
		l.lose(c, "epoll: "+err.Error())
	}
	c.asked = true
}

func (l *load) lose(c *client, reason string) {
	if c.open {
		syscall.Close(int(c.fd))
		c.open = false
	}
	if c.answered > 0 {
		l.answered--
	}
	if c.first >= 0 {
		l.begun--
	}
	l.lost++
	if l.reason == "" {
		l.reason = reason
	}
}

func (l *load) read(c *client, buffer []byte) {
	n, err := syscall.Read(int(c.fd), buffer)
	l.now = stamp.Now()
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return
	}
	if err != nil {
		l.lose(c, "read: "+err.Error())
		return
	}
	if n == 0 {
		l.lose(c, "the server closed the connection")
		return
	}
	if l.measuring {
		l.bytes += int64(n)
	}
	err = c.receive(buffer[:n], l.event)
	if c.answered == 0 && c.state != inHead {
		c.answered = l.now
		l.answered++
	}
	if err != nil {
		l.lose(c, err.Error())
	}
}

func (l *load) event(c *client, of stamp.Stamp) {
	if c.first < 0 {
		l.begun++
	}
	c.number(of.Number)
	for int64(len(l.published)) <= of.Number {
		l.published = append(l.published, 0) // a client may have a later event read before an earlier
	}
	l.published[of.Number] = of.Published
	if l.measuring {
		l.delivered++
		if c.watched {
			l.late.Record(time.Duration(l.now - of.Published))
			l.overdue.Record(time.Duration(l.now - of.Due))
		}
	}
}

// run reads until the condition holds or the time is over.
func (l *load) run(limit time.Duration, done func() bool) {
	events := make([]syscall.EpollEvent, 512)
	buffer := make([]byte, 64<<10)
	until := stamp.Now() + int64(limit)
	for !done() {
		for range perTurn {
			if l.opened >= l.allowed || l.pending() >= l.atOnce {
				break
			}
			l.connect()
		}
		wait := time.Duration(until - stamp.Now())
		if wait <= 0 {
			return
		}
		if l.publisher != nil {
			wait = min(wait, l.publisher.publish())
		}
		if l.opened < l.allowed && l.pending() < l.atOnce {
			wait = 0
		}
		n, err := syscall.EpollWait(l.poll, events, int((wait+time.Millisecond-1)/time.Millisecond))
		if err != nil && err != syscall.EINTR {
			log.Fatal("epoll_wait: ", err)
		}
		for _, event := range events[:max(n, 0)] {
			if event.Fd == publisherKey {
				l.publisher.readAnswers(buffer)
			} else if c := &l.clients[event.Fd]; !c.open {
				continue
			} else if !c.asked {
				l.ask(event.Fd)
			} else {
				l.read(c, buffer)
			}
		}
	}
}
