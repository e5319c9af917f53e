// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"fmt"
	"testing"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// Two copies to one name at the same time succeed both, and the last one stays, whole.
// A cp that saw no file and then finds one says "File exists", as it does on any disk;
// where nothing is overwritten, so does whoever ends last, or is told at once.
func TestTwoCopies(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, remote string
		policy       catalog.Policy
		old          bool // there is an image
		loses        bool // the one that ends last
	}{
		{name: "local", remote: "local"},
		{name: "local, replacing", remote: "local", old: true},
		{name: "web", remote: "web", policy: catalog.Policy{Overwrite: true, Delete: true}},
		{name: "web, replacing", remote: "web", policy: catalog.Policy{Overwrite: true, Delete: true}, old: true},
		{name: "web, fixed", remote: "web", policy: catalog.Policy{Delete: true}, loses: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := fsystest.New(t, fsystest.Options{Web: tc.policy})
			dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			a, b := source(t, fsystest.Image(700_001, 1)), source(t, fsystest.Image(900_001, 2))
			before := ":"
			if tc.old {
				before = "cp " + source(t, fsystest.Image(5000, 3)) + " x:1.sif"
			}
			out := fusetest.MustShell(t, dir, fmt.Sprintf(`
A=%[1]q B=%[2]q E=%[3]q LOSES=%[4]t
mkdir %[5]s/c; cd %[5]s/c
for i in $(seq 60); do
	%[6]s
	cp $A x:1.sif 2>$E/1 & P=$!
	cp $B x:1.sif 2>$E/2; R2=$?
	wait $P; R1=$?
	[ $R1 = 0 ] || [ $R2 = 0 ] || echo "round $i: both failed"
	for r in 1 2; do
		[ -s $E/$r ] || continue
		! $LOSES && ! grep -q "cannot create regular file.*File exists" $E/$r && cat $E/$r
		$LOSES && ! grep -qE "File exists|not permitted" $E/$r && cat $E/$r
	done
	cmp -s $A x:1.sif || cmp -s $B x:1.sif || echo "round $i: neither of the two"
	rm x:1.sif || echo "round $i: not removed"
	[ -z "$(ls -A)" ] || ls -lA
done
cd ..; rmdir c`, a, b, t.TempDir(), tc.loses, tc.remote, before))
			if out != "" {
				t.Error(out)
			}
			for _, d := range w.Spool.Drafts() {
				if !tc.loses {
					t.Errorf("left in the spool: %+v", d)
				}
			}
		})
	}
}
