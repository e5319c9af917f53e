// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends/all"
)

const configExample = `cache_size = "200G"
cache_dir  = "/scratch/me/sregfs"

[remotes.lab]
type = "oci"
url  = "https://registry.lab.org"

[remotes.ghcr]
type          = "ghcr"
user          = "me"
token_command = "pass show ghcr"
read_only     = true`

const configHelp = `The file config.toml of sregfs(8) and sreg(1) is written in TOML (https://toml.io). Nothing has to be configured: without
a file there is the remote "local". A flag wins over the variable of the environment, the variable over the file,
the file over the default. An unknown key is an error that names the nearest known one.

The file says where logins are sent and which commands are run for them, so one that somebody else could have written is
refused: it must belong to you or to root, and nobody else may write to it.

Sizes are written 500M, 20G or 20GiB, which count by 1024, or 20GB, which counts by 1000; durations 90s, 5m, 1h30m.`

// configPage returns sregfs.toml(5): the settings as the programs declare them, the keys of
// remotes as docs, the folder of the documentation, describes them.
func configPage(docs string) (page, error) {
	p := page{name: "sregfs.toml", title: "sregfs.toml", section: "5", short: "configuration of sregfs and sreg", also: []string{"sregfs(8)", "sreg(1)", "sreg-remote(1)", "sreg-login(1)"}}
	p.add("Description", blocksOf(configHelp)...)
	p.add("Settings", append([]block{{text: "As flags and mount options they are written with hyphens in place of underscores: `--cache-size`."}}, settingItems()...)...)
	shared, err := keyItems(filepath.Join(docs, "configuration.md"))
	if err != nil {
		return p, err
	}
	p.add("Remotes", append([]block{{text: "A table `[remotes.NAME]` is one registry. These keys are for all types:"}}, shared...)...)
	types := []block{{text: "What a type has besides. /usr/share/doc/sregfs/docs/backends has a page for each."}}
	for _, name := range all.Names() {
		path := filepath.Join(docs, "backends", name+".md")
		keys, err := keyItems(path)
		if err != nil {
			return p, err
		}
		title, err := titleOf(path)
		if err != nil {
			return p, err
		}
		types = append(append(types, block{kind: subheading, text: title}), keys...)
	}
	p.add("Types", types...)
	p.add("Examples", block{kind: literal, text: configExample})
	p.add("Files",
		block{kind: item, term: "$XDG_CONFIG_HOME/sregfs/config.toml", text: "The file of a user, mostly `~/.config/sregfs/config.toml`; `SREGFS_CONFIG` or `--config` name another."},
		block{kind: item, term: "$XDG_CONFIG_HOME/sregfs/credentials/NAME", text: "What `sreg login NAME` has stored."},
	)
	return p, nil
}

var (
	tableRow  = regexp.MustCompile("^\\| (`[^|]*`) \\| (.*) \\|$")
	linkText  = regexp.MustCompile(`\[([^][]+)\]\([^)]*\)`)
	belowHere = regexp.MustCompile(`, see (below|\[[^]]+\]\(#[^)]*\))$`)
)

// keyItems reads the table "| key | meaning |" of a page of the documentation.
func keyItems(path string) ([]block, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	_, table, ok := strings.Cut(string(text), "\n| key | meaning |\n|---|---|\n")
	if !ok {
		return nil, fmt.Errorf("%s has no table of keys", path)
	}
	var items []block
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		m := tableRow.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			return nil, fmt.Errorf("%s: a row that is no `key` and its meaning: %s", path, line)
		}
		items = append(items, block{kind: item, term: strings.ReplaceAll(m[1], "`", ""), text: plain(m[2])})
	}
	return items, nil
}

// plain removes from a cell what only a web page can show.
func plain(text string) string {
	text = belowHere.ReplaceAllString(text, "")
	text = linkText.ReplaceAllString(text, "$1")
	return strings.ReplaceAll(text, `\|`, "|")
}

// titleOf returns the heading of a page.
func titleOf(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strings.ReplaceAll(strings.TrimPrefix(first, "# "), "`", ""), nil
}
