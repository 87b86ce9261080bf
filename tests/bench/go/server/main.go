// The Go program's handler, as its author would serve it; the yardstick of the benchmark.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

// start sends the response's head at once, as the other servers do: the original sends it only
// with the first event, and the load client counts a connection as accepted when it is answered.
func start(w http.ResponseWriter) http.Flusher {
	w.Header().Set("Content-Type", "text/event-stream")
	f := w.(http.Flusher)
	f.Flush()
	return f
}

func sse(w http.ResponseWriter, r *http.Request) {
	f := start(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(500 * time.Millisecond):
			t := time.Now().Unix()
			fmt.Fprintf(w, "id: %d\nevent: ping\ndata: %d\n\n", t, t)
			f.Flush()
		}
	}
}

func idle(w http.ResponseWriter, r *http.Request) {
	start(w)
	<-r.Context().Done()
}

func main() {
	http.HandleFunc("/sse", sse)
	http.HandleFunc("/idle", idle)
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
