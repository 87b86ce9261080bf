// Many clients of one hub, in one thread: what is published once, and comes to all of them.
//
// Every event carries a stamp (see the package of that name), so each client knows which events
// it missed or had twice, and how late each was. There are two forms:
//
// The fan-out: all clients connect, then events are published at a rate, and one window of that is
// measured. The storm, with -storm: while events are published to those clients, so many others
// join, all at once, and the lateness that the first ones see meanwhile is measured.
//
// It prints a line of JSON when the clients are connected ("connected"), when the measuring begins
// ("measuring") and is over ("done"), and when all has come that was to come ("checked"); then
// it holds the connections until its standard input ends.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"syscall"
	"time"

	"penstock/bench/report"
	"penstock/bench/stamp"
)

const (
	atOnce      = 256                    // clients of the fan-out that may wait for an answer at the same time
	answerLimit = time.Minute            // for all of them
	warmUp      = time.Second            // from the first event until the measuring begins
	surplus     = 200 * time.Millisecond // for which is published after it has ended
	quiet       = 500 * time.Millisecond // without an event, and all has come that will come
	drainLimit  = 10 * time.Second
)

func never() bool { return false }

func (l *load) all() bool { return l.answered+l.lost >= l.allowed }

func (l *load) measure(window time.Duration, done func() bool) map[string]any {
	begin, used := stamp.Now(), report.CPU()
	report.Say("measuring", map[string]any{})
	l.measuring = true
	l.run(window, done)
	l.measuring = false
	return map[string]any{
		"seconds":   time.Duration(stamp.Now() - begin).Seconds(),
		"cpu":       report.CPU() - used,
		"delivered": l.delivered,
		"bytes":     l.bytes,
		"p50":       report.Milliseconds(l.late.Percentile(0.50)),
		"p99":       report.Milliseconds(l.late.Percentile(0.99)),
		"max":       report.Milliseconds(l.late.Maximum),
		"due_p99":   report.Milliseconds(l.overdue.Percentile(0.99)),
	}
}

// fanOut measures one window of publishing at a rate.
func (l *load) fanOut(from source, rate float64, window time.Duration) error {
	if err := from.start(rate, (warmUp + window + surplus).Seconds()); err != nil {
		return err
	}
	l.run(warmUp, never)
	report.Say("done", l.measure(window, never))

	limit := stamp.Now() + int64(drainLimit)
	l.run(surplus, never)
	for before := int64(-1); l.received() > before && stamp.Now() < limit; {
		before = l.received()
		l.run(quiet, never)
	}
	figures, err := from.statistics()
	if err != nil {
		return err
	}
	l.check(max(figures.Published, int64(len(l.published))), figures.Dropped)
	return nil
}

// storm lets the other clients join while those that are there are measured.
func (l *load) storm(from source, rate float64, window time.Duration, joining int) error {
	if err := from.start(rate, (warmUp + window + quiet + surplus).Seconds()); err != nil {
		return err
	}
	l.run(warmUp, never)
	begin, before := stamp.Now(), l.allowed
	l.allowed, l.atOnce = before+joining, joining
	done := l.measure(window, func() bool { return l.begun+l.lost >= l.allowed })
	served, last := 0, begin
	for i := range l.clients[before:] {
		if c := &l.clients[before+i]; c.answered > 0 && c.open {
			served++
			last = max(last, c.answered)
		}
	}
	done["served"] = served
	done["served_seconds"] = time.Duration(last - begin).Seconds()
	report.Say("done", done)

	// What has been published by then must come to everyone.
	l.run(quiet, never)
	published := int64(len(l.published))
	for limit := stamp.Now() + int64(drainLimit); l.behind(published) && stamp.Now() < limit; {
		l.run(quiet/10, never)
	}
	l.check(published, 0)
	return nil
}

func (l *load) received() (total int64) {
	for i := range l.clients {
		total += l.clients[i].delivered
	}
	return total
}

// behind tells whether anyone may still have some of so many events before it.
func (l *load) behind(published int64) bool {
	for i := range l.clients {
		if c := &l.clients[i]; c.open && c.next < published {
			return true
		}
	}
	return false
}

// publishedBy returns how many events had been published at a time, of so many.
func (l *load) publishedBy(at, most int64) int64 {
	for ; most > 0; most-- {
		if most > int64(len(l.published)) {
			continue // nobody had it: it is one of the last
		}
		if published := l.published[most-1]; 0 < published && published <= at {
			break
		}
	}
	return most
}

// check tells what each client should have had, of so many events, and had not.
func (l *load) check(published, dropped int64) {
	var missing, early, repeated int64
	kept := 0
	for i := range l.clients {
		c := &l.clients[i]
		if !c.open || c.answered == 0 {
			continue // it counts as lost, or not answered
		}
		kept++
		repeated += c.repeated
		first := published
		if c.first >= 0 {
			first = c.first
			missing += c.missing + max(published-c.next, 0)
		}
		// Its subscription is older than its answer: it should have had what was published since.
		early += first - l.publishedBy(c.answered, first)
	}
	report.Say("checked", map[string]any{
		"published":  published,
		"dropped":    dropped,
		"missing":    missing,
		"early":      early,
		"repeated":   repeated,
		"kept":       kept,
		"lost":       l.lost,
		"unanswered": len(l.clients) - kept - l.lost,
		"reason":     l.reason,
	})
}

func main() {
	port := flag.Int("port", 0, "the server's port on 127.0.0.1")
	path := flag.String("path", "/subscribe", "what to get")
	publish := flag.String("publish", "", "where to POST events; else the server publishes itself")
	count := flag.Int("clients", 500, "how many")
	rate := flag.Float64("rate", 100, "events published per second")
	window := flag.Duration("window", 10*time.Second, "how long to measure")
	joining := flag.Int("storm", 0, "how many join during the window")
	flag.Parse()
	log.SetFlags(0)
	runtime.GOMAXPROCS(1)

	poll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		log.Fatal("epoll_create1: ", err)
	}
	address := syscall.SockaddrInet4{Port: *port, Addr: [4]byte{127, 0, 0, 1}}
	l := &load{
		address: address,
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n\r\n", *path, *port),
		poll:    poll,
		clients: make([]client, *count+*joining),
		allowed: *count,
		atOnce:  atOnce,
		late:    report.NewHistogram(),
		overdue: report.NewHistogram(),
	}
	for i := range l.clients {
		l.clients[i].first = -1
		l.clients[i].watched = i < *count
	}
	var from source = serverSource{fmt.Sprintf("http://127.0.0.1:%d", *port)}
	if *publish != "" {
		l.publisher = &publisher{address: address, path: *publish, poll: poll}
		from = l.publisher
	}

	begin := stamp.Now()
	l.run(answerLimit, l.all)
	report.Say("connected", map[string]any{
		"answered": l.answered,
		"seconds":  time.Duration(stamp.Now() - begin).Seconds(),
	})
	if *joining > 0 {
		err = l.storm(from, *rate, *window, *joining)
	} else {
		err = l.fanOut(from, *rate, *window)
	}
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(io.Discard, os.Stdin)
}
