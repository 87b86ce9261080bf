// Many clients of one event stream, in one thread: epoll and raw sockets, so that ten thousand of
// them cost a fifth of a core.
//
// It prints a line of JSON when every client has been answered, or a minute is over ("connected"),
// when the measuring begins ("measuring") and when it is over ("done"); then it holds the
// connections until its standard input ends.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"syscall"
	"time"

	"penstock/bench/report"
)

const (
	period          = 500 * time.Millisecond // from one event of a client to its next
	atOnce          = 256                    // clients that may wait for an answer at the same time
	connectTimeout  = 10 * time.Second       // for one of them, in the kernel
	answerLimit     = time.Minute            // for all of them
	firstEventLimit = 30 * time.Second
)

var (
	status    = []byte("HTTP/1.1 200 ")
	eventMark = []byte("\ndata:")
	lastChunk = []byte("\r\n0\r\n\r\n")
)

type client struct {
	fd       int
	open     bool
	answered bool
	matched  int           // how much of eventMark the last read ended with
	last     time.Duration // when its last event came; 0 before the first
}

type load struct {
	address  syscall.SockaddrInet4
	request  []byte
	poll     int
	start    time.Time
	clients  []client
	opened   int // tried
	pending  int // tried, and neither answered nor lost
	answered int
	begun    int // have had their first event
	lost     int
	reason   string // of the first loss

	connecting bool
	measuring  bool
	events     int
	bytes      int
	late       report.Histogram
}

func (l *load) now() time.Duration { return time.Since(l.start) }

// connect opens the next client's connection. It blocks, but on loopback the kernel completes the
// handshake at once, as long as the server's backlog has room for all that are pending.
func (l *load) connect() {
	i := l.opened
	l.opened++
	l.pending++
	c := &l.clients[i]
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		l.lose(c, "socket: "+err.Error())
		return
	}
	c.fd, c.open = fd, true
	limit := syscall.NsecToTimeval(int64(connectTimeout))
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit); err != nil {
		l.lose(c, "setsockopt: "+err.Error())
	} else if err := syscall.Connect(fd, &l.address); err != nil {
		l.lose(c, "connect: "+err.Error())
	} else if _, err := syscall.Write(fd, l.request); err != nil {
		l.lose(c, "write: "+err.Error())
	} else if err := syscall.SetNonblock(fd, true); err != nil {
		l.lose(c, "nonblock: "+err.Error())
	} else {
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}
		if err := syscall.EpollCtl(l.poll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
			l.lose(c, "epoll: "+err.Error())
		}
	}
}

func (l *load) lose(c *client, reason string) {
	if c.open {
		syscall.Close(c.fd)
		c.open = false
	}
	if !c.answered {
		l.pending--
	}
	l.lost++
	if l.reason == "" {
		l.reason = reason
	}
}

func (l *load) read(c *client, buffer []byte) {
	n, err := syscall.Read(c.fd, buffer)
	now := l.now()
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
	data := buffer[:n]
	if !c.answered {
		if !bytes.HasPrefix(data, status) {
			l.lose(c, fmt.Sprintf("answered with %.80q", data))
			return
		}
		c.answered = true
		l.pending--
		l.answered++
	}
	if l.measuring {
		l.bytes += n
	}
	for range c.count(data) {
		l.event(c, now)
	}
	// On a connection that stays open, this is all one sees of a stream's end.
	if bytes.HasSuffix(data, lastChunk) || bytes.Equal(data, lastChunk[2:]) {
		l.lose(c, "the server ended the stream")
	}
}

// count returns how many events arrived: how often eventMark ends in data, which may begin in the
// middle of one. Its first byte does not come again in it, so there is nothing to back up to.
func (c *client) count(data []byte) int {
	events := 0
	for _, b := range data {
		switch b {
		case eventMark[c.matched]:
			c.matched++
		case eventMark[0]:
			c.matched = 1
		default:
			c.matched = 0
		}
		if c.matched == len(eventMark) {
			c.matched = 0
			events++
		}
	}
	return events
}

func (l *load) event(c *client, now time.Duration) {
	if c.last == 0 {
		l.begun++
	} else if l.measuring {
		l.late.Record(now - c.last - period)
	}
	if l.measuring {
		l.events++
	}
	c.last = now
}

// run reads until the condition holds or the time is over.
func (l *load) run(until time.Duration, done func() bool) {
	events := make([]syscall.EpollEvent, 512)
	buffer := make([]byte, 64<<10)
	for !done() {
		for l.connecting && l.opened < len(l.clients) && l.pending < atOnce {
			l.connect()
		}
		left := until - l.now()
		if left <= 0 {
			return
		}
		n, err := syscall.EpollWait(l.poll, events, int(left/time.Millisecond)+1)
		if err != nil && err != syscall.EINTR {
			log.Fatal("epoll_wait: ", err)
		}
		for _, event := range events[:max(n, 0)] {
			if c := &l.clients[event.Fd]; c.open {
				l.read(c, buffer)
			}
		}
	}
}

func never() bool { return false }

func main() {
	port := flag.Int("port", 0, "the server's port on 127.0.0.1")
	path := flag.String("path", "/sse", "what to get")
	count := flag.Int("clients", 1000, "how many")
	window := flag.Duration("window", 20*time.Second, "how long to measure")
	silent := flag.Bool("silent", false, "expect no events")
	flag.Parse()
	log.SetFlags(0)
	runtime.GOMAXPROCS(1)

	poll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		log.Fatal("epoll_create1: ", err)
	}
	l := &load{
		address: syscall.SockaddrInet4{Port: *port, Addr: [4]byte{127, 0, 0, 1}},
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n\r\n", *path, *port),
		poll:    poll,
		clients: make([]client, *count),
		late:    report.NewHistogram(),
		start:   time.Now(),
	}

	l.connecting = true
	l.run(answerLimit, func() bool { return l.answered+l.lost >= *count })
	l.connecting = false
	report.Say("connected", map[string]any{"answered": l.answered, "seconds": l.now().Seconds()})
	if !*silent {
		l.run(l.now()+firstEventLimit, func() bool { return l.begun+l.lost+l.pending >= l.opened })
	}

	// The clients may all have their events at about the same time, as they connected: half a period
	// later none is due, and a whole number of them is in a window of whole periods.
	l.run(l.now()+period/2, never)

	begin, used := l.now(), report.CPU()
	report.Say("measuring", map[string]any{})
	l.measuring = true
	l.run(begin+*window, never)
	end := l.now()
	// Who still waits is as late as it is by now; else a client that is forgotten would not count.
	for i := range l.clients {
		if c := &l.clients[i]; c.open && c.last > 0 && end-c.last > period {
			l.late.Record(end - c.last - period)
		}
	}
	kept := l.kept()
	report.Say("done", map[string]any{
		"events":     l.events,
		"bytes":      l.bytes,
		"seconds":    (end - begin).Seconds(),
		"p50":        report.Milliseconds(l.late.Percentile(0.50)),
		"p99":        report.Milliseconds(l.late.Percentile(0.99)),
		"max":        report.Milliseconds(l.late.Maximum),
		"cpu":        report.CPU() - used,
		"kept":       kept,
		"lost":       l.lost,
		"unanswered": *count - kept - l.lost,
		"reason":     l.reason,
	})
	io.Copy(io.Discard, os.Stdin)
}

// kept counts the streams that have begun and are still there.
func (l *load) kept() int {
	kept := 0
	for i := range l.clients {
		if c := &l.clients[i]; c.answered && c.open {
			kept++
		}
	}
	return kept
}
