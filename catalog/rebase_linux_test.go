// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// When the draft that was published goes, those that wait for its name know on disk
// already what they replace: a crash at that moment must not make them fail. What was
// copied last wins, in the next process too.
func TestPublish_rebaseBeforeDrop(t *testing.T) {
	t.Parallel()
	svc := newService()
	b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true, Overwrite: true} })
	var ids []string
	for _, seed := range []string{"first", "second"} {
		d := draft(t, b, "c/x:1", tiny(t, seed))
		if _, err := d.Seal(t.Context(), uploads.CompleteImage); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.Info().ID)
		d.Close()
	}

	spool := filepath.Join(b.dir, "spool")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, spool, unix.IN_MOVED_FROM); err != nil {
		t.Fatal(err)
	}
	crash := make(chan string, 1)
	go func() {
		buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
		n, err := unix.Read(fd, buf)
		journal, readErr := os.ReadFile(filepath.Join(spool, ids[1], "meta.json"))
		if err != nil || n < unix.SizeofInotifyEvent || readErr != nil {
			crash <- "nothing"
			return
		}
		event := (*unix.InotifyEvent)(unsafe.Pointer(&buf[0]))
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+int(event.Len)]), "\x00")
		crash <- name + " goes; " + string(journal)
	}()
	if err := b.Retry(t.Context(), ids[0], nil); err != nil {
		t.Fatal(err)
	}
	if seen := <-crash; !strings.HasPrefix(seen, ids[0]+" goes; ") || !strings.Contains(seen, `"replaces":"rev1"`) {
		t.Errorf("a crash would have left: %s", seen)
	}
	b.restart()
	if err := b.Retry(t.Context(), ids[1], nil); err != nil {
		t.Errorf("the later copy: %v", err)
	}
	if got := string(svc.images[mustRef(t, "c/x:1")].Content); got != string(tiny(t, "second")) {
		t.Error("the registry does not have what was copied last")
	}
}
