// A hub as one writes it in Go: a buffered channel for each client, an event encoded once, and a
// handler that loops over its channel and the request's context. The yardstick of the fan-out.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"penstock/bench/stamp"
)

// buffer is how many events a client may be behind; what comes then is dropped for it.
const buffer = 256

type hub struct {
	mutex     sync.RWMutex
	clients   map[chan []byte]struct{}
	published atomic.Int64
	dropped   atomic.Int64
	ended     atomic.Bool
}

func (h *hub) join() chan []byte {
	client := make(chan []byte, buffer)
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.clients[client] = struct{}{}
	return client
}

func (h *hub) leave(client chan []byte) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	delete(h.clients, client)
}

func (h *hub) publish(event []byte) {
	h.mutex.RLock()
	defer h.mutex.RUnlock()
	for client := range h.clients {
		select {
		case client <- event:
		default:
			h.dropped.Add(1)
		}
	}
}

// run publishes on an absolute schedule: when it is late, all that is due.
func (h *hub) run(rate, seconds float64) {
	defer h.ended.Store(true)
	start, period, total := stamp.Now(), 1e9/rate, int64(rate*seconds)
	for number := int64(0); number < total; {
		elapsed := stamp.Now() - start
		if float64(elapsed) > seconds*1e9 {
			return
		}
		for due := min(int64(float64(elapsed)/period)+1, total); number < due; number++ {
			of := stamp.Stamp{Number: number, Due: start + int64(float64(number)*period), Published: stamp.Now()}
			event := fmt.Appendf(nil, "id: %d\ndata: ", number)
			h.publish(append(of.Append(event), "\n\n"...))
			h.published.Store(number + 1)
		}
		time.Sleep(time.Duration(float64(start) + float64(number)*period - float64(stamp.Now())))
	}
}

func (h *hub) subscribe(w http.ResponseWriter, r *http.Request) {
	client := h.join()
	defer h.leave(client)
	w.Header().Set("Content-Type", "text/event-stream")
	flusher := w.(http.Flusher)
	flusher.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case event := <-client:
			if _, err := w.Write(event); err != nil {
				return
			}
			// What else waits goes with it: one flush, and mostly one system call, for all of it.
			for range len(client) {
				if _, err := w.Write(<-client); err != nil {
					return
				}
			}
			flusher.Flush()
		}
	}
}

func (h *hub) start(w http.ResponseWriter, r *http.Request) {
	rate, err := strconv.ParseFloat(r.FormValue("rate"), 64)
	seconds, err2 := strconv.ParseFloat(r.FormValue("seconds"), 64)
	if err != nil || err2 != nil || rate <= 0 || seconds <= 0 {
		http.Error(w, "rate and seconds are needed", http.StatusBadRequest)
		return
	}
	go h.run(rate, seconds)
}

func (h *hub) statistics(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(map[string]any{
		"published": h.published.Load(), "dropped": h.dropped.Load(), "ended": h.ended.Load(),
	})
}

func main() {
	h := &hub{clients: map[chan []byte]struct{}{}}
	http.HandleFunc("GET /subscribe", h.subscribe)
	http.HandleFunc("POST /start", h.start)
	http.HandleFunc("GET /statistics", h.statistics)
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
