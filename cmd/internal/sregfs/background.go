// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// The process that stays is started by one that waits until the mount can be
// used and then ends: a shell that goes on finds the tree, and one that fails has
// the reason. They talk through a pipe whose number is in this variable.
const readyVariable = "_SREGFS_READY_FD"

// An outcome is what the process that stays says of its start.
type outcome struct {
	Error string `json:"error,omitempty"`
	Code  int    `json:"code"`
}

// background starts the process that stays and waits for its outcome.
func (c *command) background() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	defer r.Close()
	child := &exec.Cmd{
		Path: self, Args: c.args, Env: append(os.Environ(), readyVariable+"=3"),
		Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{w},
	}
	// From here on an interrupt goes to the child, which undoes what it did. It stays in
	// our process group until the mount works: while automount waits for us, autofs lets
	// no other through (https://docs.kernel.org/filesystems/autofs.html).
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := child.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start in the background: %w", err)
	}
	w.Close()
	outcomes := make(chan error, 1)
	go func() { outcomes <- c.outcomeOf(r, child) }()
	for interrupted := false; ; {
		select {
		case <-signals:
			interrupted = true
			_ = child.Process.Signal(syscall.SIGTERM)
		case err := <-outcomes:
			if interrupted {
				return exit.WithCode(exit.Interrupted, errors.New("interrupted"))
			}
			return err
		}
	}
}

// outcomeOf reads what the child says. One that ends without a word has crashed.
func (c *command) outcomeOf(r io.Reader, child *exec.Cmd) error {
	var o outcome
	if err := json.NewDecoder(r).Decode(&o); err != nil {
		return fmt.Errorf("the process in the background ended before the mount worked (%v)", child.Wait())
	}
	if o.Code != exit.OK {
		_ = child.Wait()
		return exit.WithCode(o.Code, errors.New(o.Error))
	}
	return child.Process.Release()
}

// A readyPipe leads from the process that stays to the one that waits.
type readyPipe struct{ w *os.File }

// takeReadyPipe returns the pipe if this is the process that stays, else nil.
func takeReadyPipe(getenv func(string) string) (*readyPipe, error) {
	text := getenv(readyVariable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, usagef("%s=%q is not for you", readyVariable, text)
	}
	// What we start must not keep the other process waiting, nor take itself for us.
	unix.CloseOnExec(fd)
	if err := os.Unsetenv(readyVariable); err != nil {
		return nil, err
	}
	return &readyPipe{w: os.NewFile(uintptr(fd), "ready")}, nil
}

// ready leaves the session of whoever started us, and says that the mount works. Later
// reports have no reader.
func (p *readyPipe) ready() error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("leave the session: %w", err)
	}
	_ = json.NewEncoder(p.w).Encode(outcome{Code: exit.OK})
	p.w.Close()
	return nil
}

// A reportedError has been printed by the process that waits.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// report hands err to the process that waits, if it still does.
func (p *readyPipe) report(err error) error {
	if err == nil {
		p.w.Close()
		return nil
	}
	if json.NewEncoder(p.w).Encode(outcome{Error: err.Error(), Code: exit.Code(err)}) != nil {
		return err
	}
	p.w.Close()
	return reportedError{err}
}

func reported(err error) bool {
	_, ok := errors.AsType[reportedError](err)
	return ok
}
