// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// A frame is one line of an answer: exactly one of its fields is set.
type frame struct {
	Item     json.RawMessage `json:"item,omitempty"`
	Progress *progress       `json:"progress,omitempty"`
	Error    *wireError      `json:"error,omitempty"`
	End      bool            `json:"end,omitempty"`
}

type progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// flushAfter is how long a frame may wait for others to share a write with.
// Without the delay a list of 100,000 images is as many system calls.
const flushAfter = 20 * time.Millisecond

// A frameWriter writes frames. Its methods may be called from many goroutines.
type frameWriter struct {
	mu    sync.Mutex // guards the fields below
	out   *bufio.Writer
	flush func()
	timer *time.Timer // runs while something waits in out
	err   error       // of the first write that failed
	done  bool
}

func newFrameWriter(w http.ResponseWriter) *frameWriter {
	f := &frameWriter{out: bufio.NewWriterSize(w, 32<<10), flush: func() {}}
	if fl, ok := w.(http.Flusher); ok {
		f.flush = fl.Flush
	}
	return f
}

func (f *frameWriter) item(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %v", err)
	}
	// As json.Marshal would write the frame, which would look at the text again.
	return f.writeParts([]byte(itemStart), text, []byte(itemEnd))
}

// How a frame with an item begins and ends.
const itemStart, itemEnd = `{"item":`, `}`

// progress is a catalog.Progress. Frames that come faster than they are flushed
// are of no use to anybody, but the last one always counts.
func (f *frameWriter) progress(done, total int64) {
	_ = f.write(frame{Progress: &progress{Done: done, Total: total}})
}

func (f *frameWriter) write(fr frame) error {
	text, err := json.Marshal(fr)
	if err != nil {
		return fmt.Errorf("encode the answer: %v", err)
	}
	return f.writeParts(text)
}

// writeParts writes one line.
func (f *frameWriter) writeParts(parts ...[]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.done {
		return f.err
	}
	for _, p := range parts {
		_, _ = f.out.Write(p) // it keeps its error
	}
	f.err = f.out.WriteByte('\n')
	if f.timer == nil {
		f.timer = time.AfterFunc(flushAfter, f.flushLater)
	}
	return f.err
}

func (f *frameWriter) flushLater() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timer = nil
	if !f.done {
		f.flushLocked()
	}
}

func (f *frameWriter) flushLocked() {
	if err := f.out.Flush(); err != nil && f.err == nil {
		f.err = err
	}
	f.flush()
}

// end writes the last frame. Later calls write nothing.
func (f *frameWriter) end(err error) {
	last := frame{End: true}
	if err != nil {
		last = frame{Error: encodeError(err)}
	}
	_ = f.write(last)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
	}
	if !f.done {
		f.flushLocked()
	}
	f.done = true
}

// maxFrame bounds one line of an answer: an inspection with its scripts is the
// largest.
const maxFrame = 16 << 20

// readFrame reads one line, which the result may share.
func readFrame(line []byte) (f frame, err error) {
	// Nearly all frames of a long answer are items: they are read once, by whoever
	// knows what they are.
	if item, ok := bytes.CutPrefix(line, []byte(itemStart)); ok {
		if item, ok = bytes.CutSuffix(item, []byte(itemEnd)); ok {
			return frame{Item: item}, nil
		}
	}
	return f, json.Unmarshal(line, &f)
}

// readFrames calls fn for each frame of r but the last one, and returns what that
// one says; a frame is valid until fn returns. An answer without a last frame is an
// io.ErrUnexpectedEOF.
func readFrames(r io.Reader, fn func(frame) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxFrame)
	for lines.Scan() {
		f, err := readFrame(lines.Bytes())
		if err != nil {
			return fmt.Errorf("%w: the answer is not JSON: %v", ErrProtocol, err)
		}
		switch {
		case f.Error != nil:
			return f.Error.decode()
		case f.End:
			return nil
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w: a line of more than %d bytes", ErrProtocol, maxFrame)
	}
	return fmt.Errorf("%w: the answer broke off; did the mount end?", io.ErrUnexpectedEOF)
}
