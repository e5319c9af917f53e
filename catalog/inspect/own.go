// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"path"
	"strings"
)

// Own returns what the author of an image wrote: f without the labels and scripts that
// Singularity and Apptainer put into every image, and without the first lines that they put
// into each script. left counts the labels and texts that it leaves out.
func (f *Facts) Own() (own *Facts, left int) {
	out := *f
	out.Labels, out.Environment = nil, nil
	for name, value := range f.Labels {
		if isBuildLabel(name) {
			left++
		} else {
			set(&out.Labels, name, value)
		}
	}
	for name, script := range f.Environment {
		if body := ownScript(script); !baseEnvironment[path.Base(name)] && body != "" {
			set(&out.Environment, name, body)
		} else if body != "" {
			left++
		}
	}
	for _, script := range []*string{&out.RunScript, &out.StartScript, &out.Test, &out.Help} {
		if strings.Contains(*script, containerMark) {
			*script = ""
			left++
		}
		*script = ownScript(*script)
	}
	return &out, left
}

func set(m *map[string]string, name, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[name] = value
}

// baseEnvironment are the files in /.singularity.d/env that are the same in all images, and
// the one that repeats what the container image says that a SIF was made of.
var baseEnvironment = map[string]bool{
	"01-base.sh": true, "10-docker.sh": true, "10-docker2singularity.sh": true, "94-appsbase.sh": true,
	"95-apps.sh": true, "99-base.sh": true, "99-runtimevars.sh": true,
}

// containerMark is in the run script that is made of a container image's Entrypoint and Cmd.
const containerMark = "\nOCI_ENTRYPOINT="

// customMark ends what stands at the beginning of every 90-environment.sh.
const customMark = "# Custom environment shell code should follow\n"

// isBuildLabel reports whether a label is one that says how an image was built: Singularity 2
// wrote them in capitals, its successors in the scheme of label-schema.org.
func isBuildLabel(name string) bool {
	rest, ok := strings.CutPrefix(name, "org.label-schema.")
	if !ok {
		return strings.HasPrefix(name, "SINGULARITY_")
	}
	return rest == "build-arch" || rest == "build-date" || rest == "schema-version" || rest == "usage" || strings.HasPrefix(rest, "usage.")
}

// ownScript returns a script without the first line that names its shell, the notice of the
// build tool, and the margin that it has in the definition file.
func ownScript(script string) string {
	if _, rest, ok := strings.Cut(script, customMark); ok {
		script = rest
	}
	if strings.HasPrefix(script, "#!/bin/sh") {
		_, script, _ = strings.Cut(script, "\n")
	}
	lines := strings.Split(strings.TrimRight(script, " \t\r\n"), "\n")
	for len(lines) > 0 && strings.TrimSpace(lines[0]) == "" {
		lines = lines[1:]
	}
	margin := -1
	for _, line := range lines {
		if bare := strings.TrimLeft(line, " "); bare != "" && (margin < 0 || len(line)-len(bare) < margin) {
			margin = len(line) - len(bare)
		}
	}
	for i, line := range lines {
		lines[i] = line[min(max(margin, 0), len(line)-len(strings.TrimLeft(line, " "))):]
	}
	return strings.Join(lines, "\n")
}
