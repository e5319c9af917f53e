// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// terminal returns both ends of one: what a person sees and types, and what a
// program has as its standard input.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// after reads r until it has shown text.
func after(t *testing.T, r io.Reader, text string) {
	t.Helper()
	var seen bytes.Buffer
	for one := make([]byte, 1); !strings.HasSuffix(seen.String(), text); seen.Write(one) {
		if _, err := r.Read(one); err != nil {
			t.Fatalf("%v after %q, want %q", err, seen.String(), text)
		}
	}
}

func TestLogin_terminal(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "hunter2"})
	home := t.TempDir()
	run(t, home, "", "remote", "add", "lab", "oci", "url="+reg.URL)
	person, program := terminal(t)
	shown, stderr := io.Pipe()
	done := make(chan error, 1)
	go func() {
		a, _ := newApp(home, program, stderr)
		err := a.run(t.Context(), []string{"login", "lab"})
		stderr.Close()
		done <- err
	}()
	after(t, shown, "alone): ")
	fmt.Fprintln(person, "me")
	after(t, shown, "token: ")
	fmt.Fprintln(person, "hunter2")
	if _, err := io.Copy(io.Discard, shown); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !echoes(t, program) {
		t.Error("the terminal is left without echo")
	}
	program.Close()
	// The last reader of a terminal sees EIO at its end.
	screen, err := io.ReadAll(person)
	if !errors.Is(err, unix.EIO) || !strings.Contains(string(screen), "me") || strings.Contains(string(screen), "hunter") {
		t.Errorf("the screen shows %q, %v", screen, err)
	}
	if text, err := os.ReadFile(filepath.Join(home, ".config/sregfs/credentials/lab")); err != nil || !strings.Contains(string(text), "hunter2") {
		t.Errorf("stored is %q, %v", text, err)
	}
}

// Whoever interrupts the question has a terminal that echoes again.
func TestLogin_interrupted(t *testing.T) {
	t.Parallel()
	person, program := terminal(t)
	shown, stderr := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		a, _ := newApp(t.TempDir(), program, stderr)
		_, err := a.askSecret(ctx, "token: ")
		stderr.Close()
		done <- err
	}()
	after(t, shown, "token: ")
	if echoes(t, program) {
		t.Error("the terminal echoes a secret")
	}
	cancel()
	if _, err := io.Copy(io.Discard, shown); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) || !echoes(t, program) {
		t.Errorf("%v, echo %v", err, echoes(t, program))
	}
	fmt.Fprintln(person) // ends the read that was left
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}
