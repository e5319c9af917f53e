// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/sylabs/sif/v2/pkg/sif"
)

const (
	maxTexts   = 8 << 20 // bytes of everything shown of an image
	maxEnviron = 64      // environment files
)

// read fills f, with a note for each part that cannot be had.
func (f *Facts) read(p *pager) {
	head, err := p.bytes(0, min(p.size, headSize))
	if err != nil {
		f.note("the first bytes", err)
		return
	}
	if line, _, ok := bytes.Cut(head, []byte("\n")); ok && bytes.HasPrefix(line, []byte("#!")) {
		f.Launch = text(line)
	}
	off, bare := findSquashfs(head)
	switch {
	case isSIF(head):
		f.Format = "sif"
		f.readSIF(p)
	case bare:
		f.Format = "simg"
		f.readTree(p, off, p.size-off)
	case isGzip(head):
		f.readGzip(p)
	case isTar(head):
		f.readArchive(p)
	case isExt3(head):
		f.Format = "ext3"
		f.readExt3(head[1024:])
	}
}

// text makes b fit to be shown: JSON and terminals want UTF-8.
func text(b []byte) string {
	return strings.ToValidUTF8(strings.ReplaceAll(string(b), "\x00", ""), "\uFFFD")
}

func (f *Facts) note(what string, err error) {
	f.Notes = append(f.Notes, text([]byte(what+": "+err.Error())))
}

func stamp(t time.Time) string {
	if y := t.UTC().Year(); t.Unix() <= 0 || y > 9999 {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (f *Facts) readSIF(p *pager) {
	img, err := loadSIF(p)
	if err != nil {
		f.note("SIF header", err)
		return
	}
	if f.Arch = img.PrimaryArch(); f.Arch == "unknown" {
		f.Arch = ""
	}
	f.ID = img.ID()
	f.Created = stamp(img.CreatedAt())
	all := objects(img)
	for _, d := range all {
		f.Descriptors = append(f.Descriptors, describe(d))
		f.readObject(p, d, all)
	}
	f.readContainer(p, all)
	f.readOCI(p, all)
	if root, ok := rootFS(all); ok {
		f.readTree(p, root.Offset(), root.Size())
	} else if isEncrypted(all) {
		f.Notes = append(f.Notes, "the file system is encrypted: what is in it cannot be read")
	}
	f.readMetadata(p, all)
}

// readObject takes what a single object tells.
func (f *Facts) readObject(p *pager, d sif.Descriptor, all []sif.Descriptor) {
	var take func(data []byte) error
	switch d.DataType() {
	case sif.DataDeffile:
		take = func(data []byte) error { return f.set(&f.Definition, data) }
	case sif.DataLabels:
		take = f.addLabels
	case sif.DataEnvVar:
		take = func(data []byte) error { return f.addEnvironment(fmt.Sprintf("object %d", d.ID()), data) }
	case sif.DataSignature:
		take = func(data []byte) error { f.Signatures = append(f.Signatures, signature(d, data, all)); return nil }
	default:
		return
	}
	data, err := objectData(p, d)
	if err == nil {
		err = take(data)
	}
	if err != nil {
		f.note(fmt.Sprintf("object %d (%s)", d.ID(), d.DataType()), err)
	}
}

var errTooMuch = errors.New("left out: there is too much text")

// set stores a text where there is none yet.
func (f *Facts) set(dst *string, data []byte) error {
	if *dst != "" {
		return nil
	}
	if f.texts += len(data); f.texts > maxTexts {
		return errTooMuch
	}
	*dst = text(data)
	return nil
}

func (f *Facts) addEnvironment(name string, data []byte) error {
	if f.Environment == nil {
		f.Environment = map[string]string{}
	}
	value := f.Environment[name]
	if err := f.set(&value, data); err != nil {
		return err
	}
	f.Environment[name] = value
	return nil
}

// addLabels takes a flat JSON object; values that are no strings are shown as JSON.
func (f *Facts) addLabels(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	if f.texts += len(data); f.texts > maxTexts {
		return errTooMuch
	}
	if f.Labels == nil && len(raw) > 0 {
		f.Labels = map[string]string{}
	}
	for name, value := range raw {
		if _, ok := f.Labels[name]; ok {
			continue
		}
		var s string
		if json.Unmarshal(value, &s) != nil {
			s = string(value)
		}
		f.Labels[name] = s
	}
	return nil
}

// readTree takes what the container's root file system tells.
func (f *Facts) readTree(p *pager, base, size int64) {
	t, err := openTree(p, base, size)
	if err != nil {
		f.note("squashfs", err)
		return
	}
	for _, file := range []struct {
		name string
		take func(data []byte) error
	}{
		{"labels.json", f.addLabels},
		{"Singularity", func(data []byte) error { return f.set(&f.Definition, data) }},
		{"runscript", func(data []byte) error { return f.set(&f.RunScript, data) }},
		{"startscript", func(data []byte) error { return f.set(&f.StartScript, data) }},
		{"test", func(data []byte) error { return f.set(&f.Test, data) }},
		{"runscript.help", func(data []byte) error { return f.set(&f.Help, data) }},
	} {
		n, err := t.find(".singularity.d/" + file.name)
		if err == nil {
			err = f.readFile(t, n, file.take)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.note(file.name, err)
		}
	}
	if err := f.readEnvironment(t); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.note("environment", err)
	}
}

func (f *Facts) readFile(t *tree, n *inode, take func(data []byte) error) error {
	data, err := t.read(n)
	if err != nil {
		return err
	}
	return take(data)
}

func (f *Facts) readEnvironment(t *tree) error {
	dir, err := t.find(".singularity.d/env")
	if err != nil {
		return err
	}
	var files []entry
	err = t.list(dir, func(e entry) bool {
		if path.Ext(e.name) == ".sh" {
			files = append(files, e)
		}
		return len(files) < maxEnviron
	})
	for _, e := range files {
		n, err := t.inode(e.ref)
		if err == nil {
			err = f.readFile(t, n, func(data []byte) error { return f.addEnvironment(text([]byte(e.name)), data) })
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.note("env/"+e.name, err)
		}
	}
	return err
}

// readMetadata fills what is still missing from the summary that the builder put
// beside an encrypted or otherwise unreadable file system.
func (f *Facts) readMetadata(p *pager, all []sif.Descriptor) {
	for _, d := range all {
		if d.DataType() != sif.DataGenericJSON || d.Name() != "inspect-metadata.json" {
			continue
		}
		data, err := objectData(p, d)
		if err == nil {
			err = f.addMetadata(data)
		}
		if err != nil {
			f.note(d.Name(), err)
		}
	}
}

func (f *Facts) addMetadata(data []byte) error {
	var m struct {
		Data struct {
			Attributes struct {
				Labels                                          json.RawMessage
				Environment                                     map[string]string
				Deffile, Runscript, Startscript, Test, Helpfile string
			}
		}
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	a := m.Data.Attributes
	err := errors.Join(f.set(&f.Definition, []byte(a.Deffile)), f.set(&f.RunScript, []byte(a.Runscript)),
		f.set(&f.StartScript, []byte(a.Startscript)), f.set(&f.Test, []byte(a.Test)), f.set(&f.Help, []byte(a.Helpfile)))
	if len(a.Labels) > 0 {
		err = errors.Join(err, f.addLabels(a.Labels))
	}
	for name, value := range a.Environment {
		err = errors.Join(err, f.addEnvironment(path.Base(name), []byte(value)))
	}
	return err
}
