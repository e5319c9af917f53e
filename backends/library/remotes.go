// SPDX-License-Identifier: Apache-2.0

package library

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// maxRemotes is the size in bytes above which a remote.yaml is not read.
const maxRemotes = 1 << 20

// apptainerEndpoint is Apptainer's own remote, which has no library.
const apptainerEndpoint = "cloud.apptainer.org"

// remoteFiles are the remote.yaml of Apptainer and SingularityCE, where
// "singularity remote login" keeps tokens. They are read each time.
type remoteFiles struct {
	home string // "" if there are none
	log  *slog.Logger
}

// A remoteFile is what one of them says.
type remoteFile struct {
	Active  string                 `yaml:"Active"`
	Remotes map[string]remoteEntry `yaml:"Remotes"`
}

type remoteEntry struct {
	URI      string `yaml:"URI"` // host and path, without a scheme
	Token    string `yaml:"Token"`
	Insecure bool   `yaml:"Insecure"`
}

// address returns where the endpoint is, nil if the entry makes no sense.
func (e remoteEntry) address() *url.URL {
	address := e.URI
	if address != "" && !strings.Contains(address, "://") {
		scheme := "https://"
		if e.Insecure {
			scheme = "http://"
		}
		address = scheme + address
	}
	u, err := httpx.Address(address)
	if err != nil {
		return nil
	}
	return u
}

func (f remoteFiles) paths() []string {
	if f.home == "" {
		return nil
	}
	return []string{filepath.Join(f.home, ".apptainer", "remote.yaml"), filepath.Join(f.home, ".singularity", "remote.yaml")}
}

// read reads one of them; the zero remoteFile if it is not there or damaged.
func (f remoteFiles) read(path string) remoteFile {
	var file remoteFile
	text, err := backends.ReadRegular(path, 0, maxRemotes)
	if errors.Is(err, fs.ErrNotExist) {
		return remoteFile{}
	}
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil {
		f.log.Warn("file of remotes is of no use", "file", path, "err", err)
		return remoteFile{}
	}
	return file
}

// active returns the address of the endpoint that is in use, nil if none is.
func (f remoteFiles) active() *url.URL {
	for _, path := range f.paths() {
		file := f.read(path)
		entry, ok := file.Remotes[file.Active]
		if u := entry.address(); ok && u != nil && u.Host != apptainerEndpoint {
			return u
		}
	}
	return nil
}

// token returns the token for the endpoint at that address, and the file that has
// it.
func (f remoteFiles) token(at *url.URL) (token, path string) {
	for _, path := range f.paths() {
		for _, entry := range f.read(path).Remotes {
			if u := entry.address(); u != nil && u.String() == at.String() && entry.Token != "" {
				return entry.Token, path
			}
		}
	}
	return "", ""
}
