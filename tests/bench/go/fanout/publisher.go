package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"syscall"
	"time"

	"penstock/bench/stamp"
)

const (
	publisherKey = -1 // in epoll, where the clients have their index
	pipelined    = 16 // requests that may be without an answer
	askLimit     = 10 * time.Second
)

var answerMark = []byte("HTTP/1.1 20")

// statistics is what a source of events has done.
type statistics struct {
	Published int64 `json:"published"`
	Dropped   int64 `json:"dropped"` // by the server, where it counts that
	Ended     bool  `json:"ended"`
}

// source publishes on an absolute schedule: when it is late, all that is due.
type source interface {
	start(rate, seconds float64) error
	statistics() (statistics, error)
}

// serverSource is a task in the server, which is begun and asked over HTTP.
type serverSource struct{ base string }

func (s serverSource) start(rate, seconds float64) error {
	answer, err := http.Post(fmt.Sprintf("%s/start?rate=%g&seconds=%g", s.base, rate, seconds), "", nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/start was answered with %s", answer.Status)
	}
	return nil
}

func (s serverSource) statistics() (statistics, error) {
	var figures statistics
	client := http.Client{Timeout: askLimit}
	answer, err := client.Get(s.base + "/statistics")
	if err != nil {
		return figures, err
	}
	defer answer.Body.Close()
	return figures, json.NewDecoder(answer.Body).Decode(&figures)
}

// publisher publishes over HTTP, from this program's own loop and on one connection, so that the
// server takes the events in their order.
type publisher struct {
	address    syscall.SockaddrInet4
	path       string
	poll       int
	fd         int
	begun      int64
	period     float64 // nanoseconds
	total      int64
	until      int64
	number     int64 // of the next event
	unanswered int
	unsent     []byte
	tail       []byte // of the last answers that were read: less than answerMark
}

func (p *publisher) start(rate, seconds float64) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p.fd = fd
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: publisherKey}
	for _, step := range []func() error{
		func() error { return syscall.Connect(fd, &p.address) },
		func() error { return syscall.SetNonblock(fd, true) },
		func() error { return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) },
		func() error { return syscall.EpollCtl(p.poll, syscall.EPOLL_CTL_ADD, fd, &event) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	p.begun = stamp.Now()
	p.until = p.begun + int64(seconds*1e9)
	p.period, p.total = 1e9/rate, int64(rate*seconds)
	return nil
}

func (p *publisher) statistics() (statistics, error) {
	return statistics{Published: p.number, Ended: p.ended()}, nil
}

func (p *publisher) ended() bool { return p.number >= p.total || stamp.Now() > p.until }

// publish sends what is due, as far as the server has answered what was sent before, and returns
// how long nothing is to be done.
func (p *publisher) publish() time.Duration {
	if p.begun == 0 || p.ended() {
		return time.Hour
	}
	now := stamp.Now()
	for p.number < p.total && p.unanswered < pipelined && p.due() <= now {
		data := stamp.Stamp{Number: p.number, Due: p.due(), Published: now}.Append(nil)
		p.unsent = fmt.Appendf(p.unsent, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s", p.path, len(data), data)
		p.number++
		p.unanswered++
	}
	if len(p.unsent) > 0 {
		n, err := syscall.Write(p.fd, p.unsent)
		if err != nil && err != syscall.EAGAIN {
			log.Fatal("publish: ", err)
		}
		p.unsent = p.unsent[max(n, 0):]
		return time.Millisecond // and look again, should some of it be left
	}
	if p.unanswered >= pipelined {
		return time.Hour // an answer ends the waiting
	}
	return max(time.Duration(p.due()-now), 0)
}

func (p *publisher) due() int64 { return p.begun + int64(float64(p.number)*p.period) }

// readAnswers counts the answers: one that is no success is not counted, and then nothing more is
// published.
func (p *publisher) readAnswers(buffer []byte) {
	n, err := syscall.Read(p.fd, buffer)
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return
	}
	if n <= 0 {
		log.Fatal("publish: the server closed the connection: ", err)
	}
	answers := append(p.tail, buffer[:n]...)
	p.unanswered -= bytes.Count(answers, answerMark)
	p.tail = bytes.Clone(answers[max(len(answers)-len(answerMark)+1, 0):])
}
