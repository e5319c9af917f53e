// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// The process that stays is started by another one:
//
//   - In the background by one that waits until the mount can be used and then ends: a
//     shell that goes on finds the tree, and one that fails has the reason.
//   - Under systemd (Type=notify, -f) by the service's main process, which ends when
//     the process that stays does, or when it has nothing any more that the next one
//     needs and only serves files that are open. The service has stopped then, and
//     with KillMode=process those files stay.
//
// They talk through pipes whose numbers are in these variables.
const (
	readyVariable = "_SREGFS_READY_FD" // outcomes, to the first process
	stopVariable  = "_SREGFS_STOP_FD"  // its end tells the process that stays to stop; only under systemd
	mountVariable = "_SREGFS_MOUNT_FD" // of a mount that whoever started us has made, see fdMount
)

// An outcome is what the process that stays says: that the mount works, later that it
// is stopping, that it handed everything over, or why it ended.
type outcome struct {
	Error string `json:"error,omitempty"`
	Code  int    `json:"code"`
	State state  `json:"state,omitempty"` // "" when it has ended
}

type state string

const (
	mounted    state = "mounted"
	stopping   state = "stopping"
	handedOver state = "handed over"
)

// A stayer is the process that stays, seen by the one that started it.
type stayer struct {
	cmd      *exec.Cmd
	outcomes *json.Decoder
	stop     *os.File // nil in the background
}

// start starts the process that stays.
func (c *command) start(supervised bool) (_ *stayer, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start the process that stays: %w", err)
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	s := &stayer{outcomes: json.NewDecoder(r), cmd: &exec.Cmd{Path: self, Args: c.args, Stdout: os.Stdout, Stderr: os.Stderr}}
	s.cmd.Env = append(environ("NOTIFY_SOCKET"), readyVariable+"="+s.pass(w))
	if supervised {
		var theirs *os.File
		if theirs, s.stop, err = os.Pipe(); err != nil {
			return nil, err
		}
		defer theirs.Close()
		s.cmd.Env = append(s.cmd.Env, stopVariable+"="+s.pass(theirs))
	}
	if fd, ok := fdMount(c.mountpoint); ok {
		f := os.NewFile(uintptr(fd), "mount")
		defer f.Close()
		s.cmd.Env = append(s.cmd.Env, mountVariable+"="+s.pass(f))
	}
	return s, s.cmd.Start()
}

// pass lets the process that stays have f, and returns the number that it has there.
func (s *stayer) pass(f *os.File) string {
	s.cmd.ExtraFiles = append(s.cmd.ExtraFiles, f)
	return strconv.Itoa(2 + len(s.cmd.ExtraFiles))
}

// environ is os.Environ without a variable.
func environ(but string) []string {
	var all []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, but+"=") {
			all = append(all, v)
		}
	}
	return all
}

// next returns what the process says next. One that ends without a word has crashed.
func (s *stayer) next() (o outcome, err error) {
	if err := s.outcomes.Decode(&o); err != nil {
		// What it has ended with says more than how the pipe did.
		return o, fmt.Errorf("the process that stays has ended unexpectedly (%v)", s.cmd.Wait())
	}
	if o.Code != exit.OK {
		_ = s.cmd.Wait()
		return o, exit.WithCode(o.Code, errors.New(o.Error))
	}
	return o, nil
}

// all returns a channel of what the process says until it has ended, or has handed
// everything over; with first, of its first word only.
func (s *stayer) all(first bool) <-chan result {
	results := make(chan result)
	go func() {
		defer close(results)
		for {
			o, err := s.next()
			results <- result{o, err}
			if first || err != nil || o.State == "" || o.State == handedOver {
				return
			}
		}
	}()
	return results
}

type result struct {
	outcome
	err error
}

// background starts the process that stays and waits for its outcome.
func (c *command) background() error {
	// From here on an interrupt goes to the child, which undoes what it did. It stays in
	// our process group until the mount works: while automount waits for us, autofs lets
	// no other through (https://docs.kernel.org/filesystems/autofs.html).
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	s, err := c.start(false)
	if err != nil {
		return err
	}
	results := s.all(true)
	for interrupted := false; ; {
		select {
		case <-signals:
			interrupted = true
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
		case r := <-results:
			switch {
			case interrupted:
				return exit.WithCode(exit.Interrupted, errors.New("interrupted"))
			case r.err != nil:
				return r.err
			}
			return s.cmd.Process.Release()
		}
	}
}

// supervise is the main process of a service of systemd.
func (c *command) supervise() error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	s, err := c.start(true)
	if err != nil {
		return err
	}
	results := s.all(false)
	for asked := false; ; {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP && !asked {
				asked = true
				// Not by the signal: with KillMode=control-group systemd sends that too, and
				// the second one would end what is going on.
				s.stop.Close()
				continue
			}
			_ = s.cmd.Process.Signal(sig)
		case r := <-results:
			if r.err != nil {
				return r.err
			}
			switch r.State {
			case mounted:
				_, _ = daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=mounted at "+c.mountpoint)
			case stopping:
				_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
			case handedOver:
				return nil
			default:
				_ = s.cmd.Wait()
				return nil
			}
		}
	}
}

// A starter is the process that started this one, which stays. Nil is nobody.
type starter struct {
	w    *os.File
	stop *os.File // nil if it only waits for the mount
}

// takeStarter returns the starter if this is the process that stays, else nil.
func (c *command) takeStarter() (*starter, error) {
	w, err := c.takeFile(readyVariable)
	if w == nil || err != nil {
		return nil, err
	}
	s := &starter{w: w}
	if s.stop, err = c.takeFile(stopVariable); err != nil {
		return nil, err
	}
	mount, err := c.takeFile(mountVariable)
	if mount != nil {
		c.mountpoint, c.mountFile = fdPrefix+strconv.Itoa(int(mount.Fd())), mount
	}
	return s, err
}

// takeFile returns the file whose number a variable has, nil if it is not set.
func (c *command) takeFile(variable string) (*os.File, error) {
	text := c.getenv(variable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, usagef("%s=%q is not for you", variable, text)
	}
	// What we start must not keep the other process waiting, nor take itself for us.
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), variable), os.Unsetenv(variable)
}

// supervises reports whether the starter stays, too: it has the standard output.
func (s *starter) supervises() bool { return s != nil && s.stop != nil }

// ready leaves the session of whoever started us, and says that the mount works. Unless
// the starter stays later reports have no reader.
func (s *starter) ready() error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("leave the session: %w", err)
	}
	_ = json.NewEncoder(s.w).Encode(outcome{State: mounted})
	if !s.supervises() {
		s.w.Close()
	}
	return nil
}

// tell says what became of the mount, to a starter that stays. A process that handed
// everything over has no other any more.
func (s *starter) tell(now state) {
	if s.supervises() {
		_ = json.NewEncoder(s.w).Encode(outcome{State: now})
		if now == handedOver {
			s.w.Close()
		}
	}
}

// watch calls ask when the starter wants us to stop, or has died.
func (s *starter) watch(ask func(error)) {
	if !s.supervises() {
		return
	}
	go func() { // ends with the process
		_, _ = s.stop.Read(make([]byte, 1))
		ask(errors.New("the service is stopped"))
	}()
}

// A reportedError has been printed by the process that waits.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// report hands err to the process that waits, if it still does.
func (s *starter) report(err error) error {
	o := outcome{Code: exit.Code(err)}
	if err != nil {
		o.Error = err.Error()
	}
	told := json.NewEncoder(s.w).Encode(o)
	s.w.Close()
	if err == nil || told != nil {
		return err
	}
	return reportedError{err}
}

func reported(err error) bool {
	_, ok := errors.AsType[reportedError](err)
	return ok
}
