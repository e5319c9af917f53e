// SPDX-License-Identifier: Apache-2.0

package hubtest

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

type dict = map[string]any

// An Image is one build in the archive. Name, Tag and Content are enough.
type Image struct {
	Name    string // "org/repo"
	Tag     string
	Content []byte // of the file
	Ext     string // "sif" if empty; the content of an "img.gz" is compressed
	Built   time.Time
	Branch  string // "master" if empty
	Commit  string // 40 hexadecimal digits; made up if empty
	License string // SPDX identifier; "" for none
	SHA256  bool   // its version is that, as of the last builds
	Size    int64  // if not 0, what the index says of a content that is another
	Spoilt  bool   // one bit of the file is not what it was

	id      int
	version string
}

// completed fills in what the hub itself would have.
func (img Image) completed(id int) Image {
	img.id = id
	if img.Ext == "" {
		img.Ext = "sif"
	}
	if img.Branch == "" {
		img.Branch = "master"
	}
	if img.Commit == "" {
		img.Commit = fmt.Sprintf("%040x", id*0x9e3779b9)
	}
	if img.Built.IsZero() {
		img.Built = time.Date(2019, 7, 12, 14, 0, 0, id*1_000_000, time.UTC)
	}
	if img.Size == 0 {
		img.Size = int64(len(img.Content))
	}
	img.version = md5Of(img.Content)
	switch {
	case img.SHA256:
		sum := sha256.Sum256(img.Content)
		img.version = hex.EncodeToString(sum[:])
	case img.Ext == "img.gz":
		// The version is of what is in it (_tools_/inject_legacy.sh).
		if plain, err := gunzip(img.Content); err == nil {
			img.version = md5Of(plain)
		}
	}
	return img
}

func gunzip(text []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func md5Of(text []byte) string {
	sum := md5.Sum(text)
	return hex.EncodeToString(sum[:])
}

// buildDate is as Django writes one.
func (img Image) buildDate() string { return img.Built.UTC().Format("2006-01-02T15:04:05.000Z") }

// file is the image's path in the data set (get_shorter_file_rec in
// _tools_/process_dump.py).
func (img Image) file() string {
	return strings.Join([]string{
		img.Name, img.Tag, img.buildDate()[:10] + "-" + img.Commit[:8] + "-" + img.version[:8], img.version + "." + img.Ext,
	}, "/")
}

// Version returns the version that an archive of this image gives it.
func (img Image) Version() string { return img.completed(1).version }

// Index is the images.json of these images (dump_data in _tools_/process_dump.py).
func Index(images []Image) []byte {
	records, collections := dict{}, dict{}
	ids := map[string]int{}
	for i, img := range images {
		if img.id == 0 {
			img = img.completed(i + 1)
		}
		id, ok := ids[img.Name]
		if !ok {
			id = 100 + len(ids)
			ids[img.Name] = id
			collections[strconv.Itoa(id)] = dict{"license": license(img.License), "full_name": img.Name}
		}
		all, _ := records[img.Name].([]dict)
		records[img.Name] = append(all, dict{
			"id": img.id, "branch": img.Branch, "tag": img.Tag, "commit": img.Commit, "version": img.version,
			"build_date": img.buildDate(), "size_mb": sizeMB(img), "file": img.file(), "collection": id,
			"size": img.Size, "md5": md5Of(img.Content),
			"file_orig": strings.Join([]string{img.Name, img.Commit, img.version, img.version + "." + img.Ext}, "/"),
		})
	}
	text, err := json.MarshalIndent(dict{"images": records, "collections": collections}, "", "  ")
	if err != nil {
		panic(err) // there is nothing in it that JSON cannot say
	}
	return text
}

// sizeMB is what the hub thought of the size: a number, a text, or nothing.
func sizeMB(img Image) any {
	switch img.id % 3 {
	case 0:
		return nil
	case 1:
		return strconv.Itoa(len(img.Content) / 300_000)
	}
	return float64(len(img.Content)) / 1e6
}

func license(spdx string) any {
	if spdx == "" {
		return nil
	}
	return dict{"key": strings.ToLower(spdx), "name": spdx + " License", "spdx_id": spdx, "url": "https://api.github.com/licenses/" + strings.ToLower(spdx)}
}
