// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Of an image that Apptainer built, what is left is what its definition says.
func TestOwn(t *testing.T) {
	t.Parallel()
	own, left := read(t, load(t, "greet-signed.sif")).Own()
	want := map[string]any{
		"labels":      map[string]string{"Author": "sregfs", "Version": "1.0.0", "org.example.role": "greeting"},
		"environment": map[string]string{"90-environment.sh": "export GREETING=\"hello\"\nexport LC_ALL=C"},
		"runscript":   "echo \"${GREETING} from sregfs args=$*\"", "startscript": "echo started", "test": "",
	}
	got := map[string]any{
		"labels": own.Labels, "environment": own.Environment,
		"runscript": own.RunScript, "startscript": own.StartScript, "test": own.Test,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if left != 8+4 {
		t.Errorf("%d labels and texts left out, want 12", left)
	}
}

func TestOwn_scripts(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"":                                   "",
		"#!/bin/sh\n\n\n":                    "",
		"#!/bin/sh\nexec x\n":                "exec x",
		"#!/usr/bin/python\nprint()\n":       "#!/usr/bin/python\nprint()",
		"#!/bin/sh\n\n    a\n\n      b\n  c": "  a\n\n    b\nc",
		"#!/bin/sh\n# mine\na\n":             "# mine\na",
	} {
		own, _ := (&Facts{RunScript: script}).Own()
		if own.RunScript != want {
			t.Errorf("%q: %q, want %q", script, own.RunScript, want)
		}
	}
	own, left := (&Facts{RunScript: "#!/bin/sh\nOCI_ENTRYPOINT='\"/bin/sh\"'\nOCI_CMD=''\n"}).Own()
	if own.RunScript != "" || left != 1 {
		t.Errorf("the run script of a container image: %q, %d", own.RunScript, left)
	}
	labels := map[string]string{"SINGULARITY_DEFFILE": "x", "org.label-schema.usage.x": "x", "org.label-schema.name": "mine", "maintainer": "me"}
	own, left = (&Facts{Labels: labels}).Own()
	if diff := cmp.Diff(map[string]string{"org.label-schema.name": "mine", "maintainer": "me"}, own.Labels); diff != "" || left != 2 {
		t.Errorf("labels: %d left out (-want +got):\n%s", left, diff)
	}
}
