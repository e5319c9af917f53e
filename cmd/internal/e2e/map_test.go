// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// A memoryMap is a file that another process has mapped. Not this one: the registry that the
// kernel waits for is here, and a goroutine that faults keeps its thread, and each stop of
// the world, waiting.
type memoryMap struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

// mapFile maps all of a file.
func mapFile(t *testing.T, path string) *memoryMap {
	t.Helper()
	m := &memoryMap{cmd: exec.Command(os.Args[0], mapArgument, path)}
	var err error
	m.in, err = m.cmd.StdinPipe()
	must(t, err)
	m.out, err = m.cmd.StdoutPipe()
	must(t, err)
	must(t, m.cmd.Start())
	t.Cleanup(func() { _ = m.close() })
	_, err = io.ReadFull(m.out, make([]byte, 1)) // it is mapped
	must(t, err)
	return m
}

// read fills b with what stands at off.
func (m *memoryMap) read(b []byte, off int64) error {
	if err := binary.Write(m.in, binary.LittleEndian, [2]int64{off, int64(len(b))}); err != nil {
		return err
	}
	if _, err := io.ReadFull(m.out, b); err != nil {
		return fmt.Errorf("reading a memory map: %w (or a signal)", err)
	}
	return nil
}

func (m *memoryMap) close() error {
	m.in.Close()
	return m.cmd.Wait()
}

const mapArgument = "map-file"

// serveMap is the other process.
func serveMap(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil { // the map outlives its descriptor
		return err
	}
	if _, err := os.Stdout.Write([]byte{0}); err != nil {
		return err
	}
	for {
		var part [2]int64
		if err := binary.Read(os.Stdin, binary.LittleEndian, &part); err != nil {
			return nil //nolint:nilerr // it is the end
		}
		if _, err := os.Stdout.Write(bytes.Clone(mem[part[0]:][:part[1]])); err != nil {
			return err
		}
	}
}
