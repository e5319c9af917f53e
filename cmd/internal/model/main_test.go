// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/cmd/internal/buildtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(clientVariable) != "" {
		serveClient()
		return
	}
	os.Exit(func() int {
		defer func() {
			for _, c := range clients {
				c.stop()
			}
		}()
		if binaries = os.Getenv("SREGFS_MODEL_BIN"); binaries != "" {
			return m.Run() // of another version, to see what the model finds in it
		}
		return buildtest.Run(m, &binaries)
	}())
}

// length is that of a sequence, in operations.
const length = 60

// TestModel plays the first sequences, for 40 s at most; or random ones for as long as
// SREGFS_MODEL says (1h), from SREGFS_MODEL_SEED on if that is set.
func TestModel(t *testing.T) {
	ocitest.Need(t, "fusermount3", "docker-registry")
	lasts, seed, most := 40*time.Second, uint64(1), 30
	var err error
	if s := os.Getenv("SREGFS_MODEL"); s != "" {
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
		seed, most = rand.Uint64N(1e9), math.MaxInt
	}
	if s := os.Getenv("SREGFS_MODEL_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	begun, sequences, operations := time.Now(), 0, 0
	for ; time.Since(begun) < lasts && sequences < most && !t.Failed(); seed++ {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 0))}
		s := g.settings()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			done, err := play(t, s, g.sequence(length))
			sequences, operations = sequences+1, operations+len(done.ops)
			if err != nil {
				t.Errorf("after %d sequences and %v:\n%v\n\nseed %d, %d operations:\n%s", sequences, time.Since(begun).Round(time.Second), err, seed, len(done.ops), done)
				report(t, done)
			}
		})
	}
	t.Logf("%d sequences, %d operations", sequences, operations)
}

// report shrinks what was found, and prints the script to be put into testdata.
func report(t *testing.T, found script) {
	t.Helper()
	begun, tries := time.Now(), 0
	var why error
	short := shrink(found, begun.Add(4*time.Minute), func(s script) (differs bool) {
		tries++
		t.Run("shorter", func(t *testing.T) { // for its cleanups
			if _, err := play(t, s.settings, replay(s.ops)); err != nil {
				differs, why = true, err
			}
		})
		return differs
	})
	t.Errorf("%d operations are enough (%d tries, %v):\n\n%s\n%v", len(short.ops), tries, time.Since(begun).Round(time.Second), short, why)
}

// TestModel_scripts plays what has found something once.
func TestModel_scripts(t *testing.T) {
	ocitest.Need(t, "fusermount3", "docker-registry")
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := parseScript(string(text))
			done, err := play(t, s.settings, replay(s.ops))
			if err != nil {
				t.Error(err)
			}
			if len(done.ops) != len(s.ops) && err == nil {
				t.Errorf("only %d of %d operations were carried out", len(done.ops), len(s.ops))
			}
		})
	}
}
