// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// untold lets the service tell nobody a size beforehand, and give no bytes while
// broken.
func untold(w *fsystest.World, broken bool) {
	fault := func(rw http.ResponseWriter, r *http.Request) bool {
		content := w.Service.Get(strings.TrimPrefix(r.URL.Path, "/"))
		switch {
		case r.URL.Query().Has("list") || content == nil:
			return false
		case r.Method == http.MethodHead:
			rw.Header().Set("ETag", `"sha256:`+sum(content)+`"`)
			return true
		case broken:
			rw.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	w.Service.Fault.Store(&fault)
}

// archivers put $IMG into the file $OUT, and take it out again as $BACK.
var archivers = map[string]struct{ pack, unpack string }{
	"tar":          {`tar -cf $OUT ${IMG##*/}`, `tar -xOf $OUT > $BACK`},
	"tar tree":     {`cd .. && tar -cf $OUT vsoch`, `tar -xOf $OUT > $BACK`},
	"busybox tar":  {`busybox tar -cf $OUT ${IMG##*/}`, `tar -xOf $OUT > $BACK`},
	"busybox cpio": {`echo ${IMG##*/} | busybox cpio -o -H newc > $OUT`, `mkdir $BACK.d && cd $BACK.d && busybox cpio -i < $OUT && mv * $BACK`},
	"python": {`python3 -c 'import sys, tarfile; t = tarfile.open(sys.argv[1], "w"); t.add(sys.argv[2]); t.close()' $OUT ${IMG##*/}`,
		`tar -xOf $OUT > $BACK`},
	"rsync": {`rsync -a ./${IMG##*/} $OUT`, `cp $OUT $BACK`},
	"cp":    {`cp -a ${IMG##*/} $OUT`, `cp $OUT $BACK`},
}

// No archiver takes an image for empty because the registry does not tell its
// size; and looking does not download it.
func TestUnknownSize(t *testing.T) {
	t.Parallel()
	for name, a := range archivers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, program := range strings.Fields("tar busybox python3 rsync") {
				fusetest.NeedTool(t, program)
			}
			w := fsystest.New(t, fsystest.Options{MaxElapsed: time.Second})
			content := fsystest.Image(300_000, 1)
			w.Service.Put("vsoch/hello:1", content)
			untold(w, true)
			dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			tmp := t.TempDir()
			set := `IMG=$PWD/web/vsoch/hello:1.sif OUT=` + tmp + `/out BACK=` + tmp + `/back; `

			looked := fusetest.MustShell(t, dir, `ls -lR web; stat -c '%s %n' web/vsoch/*; find web -size 0 -name 'hello*'; du web; test -f web/vsoch/hello:1.sif`)
			if !strings.Contains(looked, "\n0 web/vsoch/hello:1.sif\n") || w.Service.Opens.Load() != 0 {
				t.Errorf("looking opened the image %d times:\n%s", w.Service.Opens.Load(), looked)
			}
			if out, ok := fusetest.Shell(t, dir, set+`set -e; cd web/vsoch; `+a.pack); ok {
				t.Errorf("packed what cannot be read, without an error: %s", out)
			}
			untold(w, false)
			os.Remove(filepath.Join(tmp, "out"))
			out, ok := fusetest.Shell(t, dir, set+`set -e; cd web/vsoch; `+a.pack+`; cd `+tmp+`; `+a.unpack)
			got, err := os.ReadFile(filepath.Join(tmp, "back"))
			if !ok || err != nil || sum(got) != sum(content) {
				t.Errorf("%d bytes came back of %d (%v, success %v): %s", len(got), len(content), err, ok, out)
			}
		})
	}
}

// What is learnt of images while a tree is packed changes neither the directory nor
// the file: tar would say so, and fail.
func TestUnknownSize_tree(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprint("told ", told), func(t *testing.T) {
			t.Parallel()
			w := fsystest.New(t, fsystest.Options{})
			for i := range 12 {
				w.Service.Put(fmt.Sprintf("vsoch/hello:%d", i), fsystest.Image(100_000+i, uint64(i)))
			}
			if !told {
				untold(w, false)
			}
			dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			fusetest.MustShell(t, filepath.Join(dir, "web"), "tar -cf "+filepath.Join(t.TempDir(), "x.tar")+" vsoch")
		})
	}
}
