// SPDX-License-Identifier: Apache-2.0

//go:build unix

package term

import (
	"os"

	"golang.org/x/sys/unix"
)

// Is reports whether v, an *os.File or something else, is a terminal.
func Is(v any) bool {
	f, ok := v.(interface{ Fd() uintptr })
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	return err == nil
}

// Width returns how many columns a terminal has; 0 if v is none, or does not say.
func Width(v any) int { return int(windowOf(v).Col) }

// Height returns how many lines a terminal has; 0 if v is none, or does not say.
func Height(v any) int { return int(windowOf(v).Row) }

func windowOf(v any) unix.Winsize {
	f, ok := v.(interface{ Fd() uintptr })
	if !ok {
		return unix.Winsize{}
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return unix.Winsize{}
	}
	return *size
}

// Silence stops a terminal from showing what is typed, until restore is called.
// What was typed before is dropped.
func Silence(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	silent := *old
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, setTermiosFlush, &silent); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, setTermios, old) }, nil
}
