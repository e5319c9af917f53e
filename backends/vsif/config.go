// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// maxConfig is the size in bytes of a configuration at most: that of a manifest (archive.MaxManifest).
const maxConfig = 4 << 20

// A config is what a container's files are made of: the image's configuration
// (image-spec, config.md).
type config struct {
	Architecture string `json:"architecture"`
	Config       struct {
		Env        []string          `json:"Env"`
		Entrypoint []string          `json:"Entrypoint"`
		Cmd        []string          `json:"Cmd"`
		Labels     map[string]string `json:"Labels"`
	} `json:"config"`

	raw []byte // of "config", as it stands
}

func readConfig(text []byte) (*config, error) {
	var c config
	var whole struct {
		Config json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("%w: the configuration of the image: %v", backends.ErrBadAnswer, err)
	}
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	c.raw = whole.Config
	if len(c.raw) == 0 || string(c.raw) == "null" {
		c.raw = []byte("{}")
	}
	return &c, nil
}

// metadata returns what "apptainer inspect" reads of a SIF (pkg/inspect of Apptainer).
func (c *config) metadata() ([]byte, error) {
	var m struct {
		Data struct {
			Attributes struct {
				Labels      map[string]string `json:"labels,omitempty"`
				Environment map[string]string `json:"environment,omitempty"`
				Runscript   string            `json:"runscript,omitempty"`
			} `json:"attributes"`
		} `json:"data"`
		Type string `json:"type"`
	}
	m.Type = "container"
	m.Data.Attributes.Labels = c.Config.Labels
	m.Data.Attributes.Environment = map[string]string{environmentFile: c.environment()}
	m.Data.Attributes.Runscript = c.runscript()
	return encode(m)
}

// encode is json.Marshal without its care for HTML, which takes six bytes for one.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

const (
	ownDirectory    = ".singularity.d"
	environmentFile = "/" + ownDirectory + "/env/10-docker2singularity.sh"
)

// addRuntime adds what Singularity needs in a container: directories to mount on, the files
// that it mounts its own over, and those that say what the container is to do.
func (t *Tree) addRuntime(c *config) error {
	for _, dir := range []string{"dev", "etc", "home", "proc", "root", "sys", "tmp", "var/tmp", ownDirectory + "/libs"} {
		if err := t.ensure(dir); err != nil {
			return err
		}
	}
	labels := c.Config.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	labelText, err := encode(labels)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		mode uint16
		text string
	}{
		{"/etc/hosts", 0o644, ""}, // those of the build machine, which are mounted over
		{"/etc/resolv.conf", 0o644, ""},
		{environmentFile, 0o755, c.environment()},
		{"/" + ownDirectory + "/env/90-environment.sh", 0o755, "#!/bin/sh\n"},
		{"/" + ownDirectory + "/env/99-base.sh", 0o755, base},
		{"/" + ownDirectory + "/labels.json", 0o644, string(labelText)},
		{"/" + ownDirectory + "/runscript", 0o755, c.runscript()},
		{"/" + ownDirectory + "/startscript", 0o755, "#!/bin/sh\n"},
	} {
		if err := t.addFile(f.name, f.mode, f.text); err != nil {
			return err
		}
	}
	return nil
}

// ensure makes a directory unless something that is one has its name.
func (t *Tree) ensure(dir string) error {
	at, missing, err := t.follow(dir)
	if err == nil && len(missing) == 0 && at.kind == Directory {
		return nil
	}
	_, err = t.makeDir(dir, dir)
	return err
}

// addFile puts a file in place of what has its name: also of a link, as it must not be
// another one's text that is replaced.
func (t *Tree) addFile(name string, mode uint16, text string) error {
	dir, base := path.Split(name)
	parent, err := t.makeDir(clean(dir), name)
	if err != nil {
		return err
	}
	t.remove(parent.children[base])
	return t.link(parent, base, &inode{kind: File, mode: mode, size: int64(len(text)), text: []byte(text)})
}

// base is sourced last; what a user sets by SINGULARITYENV_… comes after it.
const base = `#!/bin/sh
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
`

var variable = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// environment returns a script that sets the variables of the image. PATH is the image's;
// any other keeps the value that it has already.
func (c *config) environment() string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n")
	for _, line := range c.Config.Env {
		name, value, given := strings.Cut(line, "=")
		switch {
		case !variable.MatchString(name):
			continue
		case name == "PATH":
			fmt.Fprintf(&b, "PATH=%s\n", quote(value))
		case given:
			fmt.Fprintf(&b, "[ -n \"${%s:-}\" ] || %s=%s\n", name, name, quote(value))
		}
		fmt.Fprintf(&b, "export %s\n", name)
	}
	return b.String()
}

// quote returns a word for a shell that evaluates to s. Apptainer's own shell does not
// take '\” everywhere.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'" }

var special = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)

// quoteTwice returns words that evaluate to the text of words that evaluate to all.
func quoteTwice(words []string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(`"` + special.Replace(w) + `" `)
	}
	return quote(b.String())
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// runscript returns what "run" does: the entry point and the arguments, or those of Cmd if
// there are none. Apptainer knows by the line with eval that it may interpret the script by
// itself: then the image needs no shell.
func (c *config) runscript() string {
	entry, cmd := quoteAll(c.Config.Entrypoint), quoteAll(c.Config.Cmd)
	return `#!/bin/sh
if [ -n "${SINGULARITY_NO_EVAL:-}" ]; then
    # The arguments are passed on as they are.
    if [ $# -eq 0 ]; then
        set -- ` + cmd + `
    fi
    set -- ` + entry + ` "$@"
    exec "$@"
fi
# The arguments are evaluated once more, as Singularity does.
ARGS=""
for arg in "$@"; do
    ARGS="${ARGS} \"$arg\""
done
if [ $# -eq 0 ]; then
    ARGS=` + quoteTwice(c.Config.Cmd) + `
fi
ENTRYPOINT=` + quoteTwice(c.Config.Entrypoint) + `
SINGULARITY_OCI_RUN="-- ${ENTRYPOINT} ${ARGS}"
eval "set ${SINGULARITY_OCI_RUN}"
exec "$@"
`
}
