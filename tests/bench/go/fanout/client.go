package main

import (
	"bytes"
	"errors"
	"fmt"

	"penstock/bench/stamp"
)

// headLimit is more than any of the servers' response heads have.
const headLimit = 4096

// Where a client is in its response.
const (
	inHead   = iota
	inSize   // before or in the line that tells a chunk's size
	inChunk  // in what it tells the size of
	inStream // in a body that is not chunked
)

var (
	errChunk = errors.New("what came is no chunk")
	errEnded = errors.New("the server ended the stream")
	errEvent = errors.New("what came is no event of ours")
)

// client is one subscriber: where it is in what it receives, and which events it had.
type client struct {
	fd        int32
	open      bool
	asked     bool // its request is sent
	watched   bool // its events' lateness is measured
	state     int8
	sized     bool // at least one digit of a chunk's size has been read
	carries   bool // the last read ended within a stamp
	size      int  // of the chunk, or what is left of it
	head      []byte
	carried   []byte // the part of the stamp that was read
	answered  int64  // when the head came; 0 before
	first     int64  // the first event's number; -1 before
	next      int64  // the number expected next
	missing   int64  // numbers that were passed over
	repeated  int64  // events whose number had come before
	delivered int64
}

// receive takes what was read, and calls event for each that is complete.
func (c *client) receive(data []byte, event func(*client, stamp.Stamp)) error {
	for len(data) > 0 {
		switch c.state {
		case inHead:
			var err error
			if data, err = c.readHead(data); err != nil {
				return err
			}
		case inSize:
			if data = c.readSize(data); data == nil {
				return errChunk
			}
			if c.state == inChunk && c.size == 0 {
				return errEnded
			}
		case inChunk:
			part := data[:min(c.size, len(data))]
			data = data[len(part):]
			if c.size -= len(part); c.size == 0 {
				c.state = inSize
			}
			if err := c.scan(part, event); err != nil {
				return err
			}
		case inStream:
			return c.scan(data, event)
		}
	}
	return nil
}

// readHead returns what follows the response's head, if that is complete.
func (c *client) readHead(data []byte) ([]byte, error) {
	c.head = append(c.head, data...)
	head, rest, whole := bytes.Cut(c.head, []byte("\r\n\r\n"))
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) && (whole || len(head) > 20) {
		return nil, fmt.Errorf("answered with %.80q", head)
	}
	if !whole {
		if len(head) > headLimit {
			return nil, fmt.Errorf("a head without an end: %.80q", head)
		}
		return nil, nil
	}
	c.state = inStream
	if bytes.Contains(bytes.ToLower(head), []byte("transfer-encoding: chunked")) {
		c.state = inSize
	}
	rest = bytes.Clone(rest)
	c.head = nil
	return rest, nil
}

// readSize returns what follows the line that tells a chunk's size, or nil where that is no such
// line. The line end of the chunk before is passed over.
func (c *client) readSize(data []byte) []byte {
	for i, b := range data {
		switch {
		case '0' <= b && b <= '9':
			c.size = c.size<<4 | int(b-'0')
		case 'a' <= b|0x20 && b|0x20 <= 'f':
			c.size = c.size<<4 | int(b|0x20-'a'+10)
		case b == '\n' && c.sized:
			c.state, c.sized = inChunk, false
			return data[i+1:]
		case b == '\r' || b == '\n':
			continue
		default:
			return nil
		}
		c.sized = true
	}
	return data[len(data):]
}

// scan looks for stamps in a part of the body. It reads nothing else of the events.
func (c *client) scan(data []byte, event func(*client, stamp.Stamp)) error {
	for {
		if !c.carries {
			mark := bytes.IndexByte(data, stamp.Mark)
			if mark < 0 {
				return nil
			}
			data = data[mark+1:]
		}
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			c.carries = true
			if c.carried = append(c.carried, data...); len(c.carried) > stamp.Limit {
				return errEvent
			}
			return nil
		}
		line := data[:end]
		if c.carries {
			line = append(c.carried, line...)
			c.carries, c.carried = false, c.carried[:0]
		}
		of, ok := stamp.Parse(line)
		if !ok {
			return errEvent
		}
		event(c, of)
		data = data[end+1:]
	}
}

// number takes note of an event's.
func (c *client) number(number int64) {
	c.delivered++
	switch {
	case c.first < 0:
		c.first = number
		c.next = number + 1
	case number == c.next:
		c.next++
	case number > c.next:
		c.missing += number - c.next
		c.next = number + 1
	default:
		c.repeated++
	}
}
