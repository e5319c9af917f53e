// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
)

// Change edits the configuration file that Load would read, and returns its
// name. What edit makes of the text ("" if there is no file) is loaded, without
// in.Remotes, and given to check; then the file is replaced at once, with mode
// 0600. On an error it stays as it is.
//
// Errors: those of edit, Load and check; those of the local disk.
func Change(in Inputs, edit func(text []byte) ([]byte, error), check func(Settings) error) (path string, err error) {
	path, _ = configFile(in)
	if path == "" {
		return "", errors.New("there is no home directory: say --config FILE")
	}
	if isNull(path) {
		return path, fmt.Errorf("%w: %s keeps nothing: say --config FILE", fs.ErrInvalid, path)
	}
	real, unlock, err := lockFile(path)
	if err != nil {
		return path, err
	}
	defer unlock()
	text, err := backends.ReadRegular(real, 0, maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	if text, err = edit(text); err != nil {
		return path, err
	}
	s, err := loadText(path, text, in)
	if err != nil {
		return path, fmt.Errorf("%s stays as it was: %w", path, err)
	}
	if err := check(s); err != nil {
		return path, fmt.Errorf("%s stays as it was: %w", path, err)
	}
	return path, WriteSecret(real, text)
}

// loadText is Load with text as the file's.
func loadText(path string, text []byte, in Inputs) (Settings, error) {
	var s Settings
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.Flags(flags)
	in.Remotes = nil
	if len(text) > maxFile {
		return s, fmt.Errorf("more than %d bytes", maxFile)
	}
	f, err := parseFile(path, 0o600, text)
	if err != nil {
		return s, err
	}
	machine, _, err := readSystem(in, path)
	if err != nil {
		return s, err
	}
	return s, s.load(flags, append(files{f}, machine...), in)
}

// lockFile returns the name under which a file that may not be there yet is replaced,
// and keeps two of us from doing that at once. A file that is a link, into somebody's
// collection of settings, say, stays one.
func lockFile(path string) (real string, unlock func(), err error) {
	real, err = filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		real = path
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", nil, err
		}
	case err != nil:
		return "", nil, err
	}
	unlock, err = lockDir(filepath.Dir(real))
	return real, unlock, err
}

// lockDir keeps two of us from editing at once, where the filesystem can: on
// others the last one wins.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	_ = unix.Flock(int(d.Fd()), unix.LOCK_EX)
	return func() { _ = d.Close() }, nil
}
