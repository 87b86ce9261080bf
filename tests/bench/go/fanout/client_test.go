package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"penstock/bench/stamp"
)

const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

// body has three events, of each kind of line end, and a comment; the last one is not complete.
func body() string {
	var text strings.Builder
	for number, end := range []string{"\n", "\r\n", "\n"} {
		data := stamp.Stamp{Number: int64(number), Due: 10, Published: 20}.Append(nil)
		fmt.Fprintf(&text, ": comment%sid: %d%sdata: %s%s%s", end, number, end, data, end, end)
	}
	return text.String() + "data: xxx@3 1"
}

// chunked frames the text in chunks of a size.
func chunked(text string, size int) string {
	var framed strings.Builder
	for len(text) > 0 {
		part := text[:min(size, len(text))]
		text = text[len(part):]
		fmt.Fprintf(&framed, "%X\r\n%s\r\n", len(part), part)
	}
	return framed.String()
}

// received has a client read the parts, and returns the numbers of the events it had.
func received(t *testing.T, parts ...string) []int64 {
	t.Helper()
	c := client{first: -1}
	var numbers []int64
	for _, part := range parts {
		err := c.receive([]byte(part), func(_ *client, of stamp.Stamp) {
			if of.Due != 10 || of.Published != 20 {
				t.Fatalf("event %+v", of)
			}
			numbers = append(numbers, of.Number)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return numbers
}

// Wherever a read or a chunk ends, every event that is complete is seen once.
func TestEverySplit(t *testing.T) {
	plain := head + "\r\n" + body()
	for _, whole := range []string{
		plain,
		head + "Transfer-Encoding: chunked\r\n\r\n" + chunked(body(), 17),
		head + "transfer-encoding: chunked\r\n\r\n" + chunked(body(), 1000),
	} {
		for i := range whole {
			if got := received(t, whole[:i], whole[i:]); !slices.Equal(got, []int64{0, 1, 2}) {
				t.Fatalf("split at %d of %q: %v", i, whole, got)
			}
		}
		if got := received(t, strings.Split(whole, "")...); !slices.Equal(got, []int64{0, 1, 2}) {
			t.Fatalf("byte by byte: %v", got)
		}
	}
}

// What is no answer to the request, no chunk, or an end, is an error.
func TestErrors(t *testing.T) {
	framed := head + "Transfer-Encoding: chunked\r\n\r\n"
	for text, want := range map[string]string{
		"HTTP/1.1 503 Service Unavailable\r\n\r\n": "answered with",
		framed + "data: 1":                         "no chunk",
		framed + "0\r\n":                           "ended the stream",
		head + "\r\ndata: @1 2 x\n":                "no event",
	} {
		c := client{first: -1}
		err := c.receive([]byte(text), func(*client, stamp.Stamp) {})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Numbers that are passed over are missing; those that come again are repeated.
func TestNumbers(t *testing.T) {
	c := client{first: -1}
	for _, number := range []int64{5, 6, 9, 7, 10, 10} {
		c.number(number)
	}
	if c.first != 5 || c.next != 11 || c.missing != 2 || c.repeated != 2 || c.delivered != 6 {
		t.Errorf("%+v", c)
	}
}
