// SPDX-License-Identifier: Apache-2.0

package dropboxtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

const (
	blockSize  = 4 << 20   // of a content_hash
	maxRequest = 150 << 20 // bytes of one upload
)

// A blob is the bytes of one request.
type blob struct {
	bodytest.Body
	blocks []byte // hashes
}

// read reads the body of an upload and compares it with the hash that it was
// announced with.
func (c *call) read(want string) (blob, *failure) {
	body, err := c.bodies.Take(c.body)
	if err != nil {
		return blob{}, &failure{http.StatusRequestTimeout, "the body broke off"}
	}
	b := blob{body, hashes(body.Reader())}
	if c.r.ContentLength >= 0 && c.r.ContentLength != b.Size() {
		return b, bad("Content-Length %d, %d bytes", c.r.ContentLength, b.Size())
	}
	if b.Size() > maxRequest {
		return b, refuse("payload_too_large")
	}
	if want != "" && want != hashOfBlocks(b.blocks) {
		return b, refuse("content_hash_mismatch")
	}
	return b, nil
}

// hashes returns those of each block of r.
func hashes(r io.Reader) (blocks []byte) {
	for {
		h := sha256.New()
		n, err := io.CopyN(h, r, blockSize)
		if n > 0 {
			blocks = h.Sum(blocks)
		}
		if err != nil { // the end
			return blocks
		}
	}
}

func hashOfBlocks(blocks []byte) string {
	sum := sha256.Sum256(blocks)
	return hex.EncodeToString(sum[:])
}

// Hash returns the content_hash of text.
func Hash(text []byte) string { return hashOfBlocks(hashes(bytes.NewReader(text))) }

// A commitInfo says where bytes go.
type commitInfo struct {
	Path           string
	Mode           json.RawMessage
	Autorename     bool
	ClientModified string `json:"client_modified"`
	Mute           bool
	PropertyGroups any  `json:"property_groups"`
	StrictConflict bool `json:"strict_conflict"`
}

// commit gives a name to a blob. s.mu is held.
func (s *Server) commit(info commitInfo, b blob) (*node, *failure) {
	if info.Autorename {
		return nil, bad("autorename")
	}
	client := time.Now().UTC().Truncate(time.Second)
	if info.ClientModified != "" {
		var err error
		if client, err = time.Parse(timeFormat, info.ClientModified); err != nil {
			return nil, bad("client_modified: %v", err)
		}
	}
	if fail := s.checkNew(info.Path); fail != nil {
		return nil, fail
	}
	n := &node{path: info.Path, body: b.Body, hash: hashOfBlocks(b.blocks), client: client, modified: time.Now().UTC().Truncate(time.Second)}
	old := s.nodes[lower(info.Path)]
	if same, fail := conflict(info, old, n); same || fail != nil {
		return old, fail
	}
	s.store(n)
	return n, nil
}

// conflict applies the WriteMode. same says that the file is there already.
func conflict(info commitInfo, old, n *node) (same bool, _ *failure) {
	var mode struct {
		Tag    string `json:".tag"`
		Update string
	}
	if info.Mode == nil {
		mode.Tag = "add"
	} else if json.Unmarshal(info.Mode, &mode) != nil && json.Unmarshal(info.Mode, &mode.Tag) != nil {
		return false, bad("mode %s", info.Mode)
	}
	if old != nil && old.folder {
		return false, refuse("path/conflict/folder")
	}
	identical := old != nil && old.hash == n.hash && !info.StrictConflict
	switch mode.Tag {
	case "add":
		if old != nil && !identical {
			return false, refuse("path/conflict/file")
		}
		return identical, nil
	case "update":
		if old == nil && info.StrictConflict || old != nil && old.rev != mode.Update && !identical {
			return false, refuse("path/conflict/file")
		}
		return identical && old.rev != mode.Update, nil
	case "overwrite":
		return false, nil
	}
	return false, bad("mode %s", info.Mode)
}

func (c *call) upload() (any, *failure) {
	var arg struct {
		commitInfo
		ContentHash string `json:"content_hash"`
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	b, fail := c.read(arg.ContentHash)
	if fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, fail := c.commit(arg.commitInfo, b)
	if fail != nil {
		if rest, ok := strings.CutPrefix(fail.body, `{"error_summary": "path/`); ok {
			// Here the union stands in a struct (UploadWriteFailed).
			fail.body = `{"error_summary": "path/` + strings.Replace(rest, `".tag": "path", "path":`, `".tag": "path", "upload_session_id": "x", "reason":`, 1)
		}
		return nil, fail
	}
	return c.metadata(n, false), nil
}

// A session is an upload in pieces.
type session struct {
	concurrent bool
	closed     bool
	size       int64
	pieces     map[int64]blob
}

// Sessions returns how many uploads are unfinished.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// DropSessions forgets all uploads, as Dropbox does after seven days.
func (s *Server) DropSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

type tag struct {
	Tag string `json:".tag"`
}

// UnmarshalJSON takes a tag written as a string, too.
func (t *tag) UnmarshalJSON(text []byte) error {
	type plain tag
	if json.Unmarshal(text, &t.Tag) == nil {
		return nil
	}
	return json.Unmarshal(text, (*plain)(t))
}

func (c *call) sessionStart() (any, *failure) {
	var arg struct {
		Close       bool
		SessionType *tag   `json:"session_type"`
		ContentHash string `json:"content_hash"`
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	b, fail := c.read(arg.ContentHash)
	if fail != nil {
		return nil, fail
	}
	new := &session{closed: arg.Close, size: b.Size(), pieces: map[int64]blob{0: b}}
	if arg.SessionType != nil && arg.SessionType.Tag == "concurrent" {
		new.concurrent = true
		if b.Size() > 0 {
			return nil, refuse("concurrent_session_data_not_allowed")
		}
		if arg.Close {
			return nil, refuse("concurrent_session_close_not_allowed")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := fmt.Sprintf("pid_upload_session:%d", c.next())
	c.sessions[id] = new
	return map[string]any{"session_id": id}, nil
}

type sessionCursor struct {
	SessionID string `json:"session_id"`
	Offset    int64
}

func (c *call) sessionAppend() (any, *failure) {
	var arg struct {
		Cursor      sessionCursor
		Close       bool
		ContentHash string `json:"content_hash"`
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	b, fail := c.read(arg.ContentHash)
	if fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[arg.Cursor.SessionID]
	switch {
	case s == nil:
		return nil, refuse("not_found")
	case s.closed:
		return nil, refuse("closed")
	case s.concurrent && arg.Cursor.Offset%blockSize != 0:
		return nil, refuse("concurrent_session_invalid_offset")
	case s.concurrent && !arg.Close && b.Size()%blockSize != 0:
		return nil, refuse("concurrent_session_invalid_data_size")
	case !s.concurrent && arg.Cursor.Offset != s.size:
		return nil, &failure{409, fmt.Sprintf(`{"error_summary": "incorrect_offset/..", "error": {".tag": "incorrect_offset", "correct_offset": %d}}`, s.size)}
	}
	s.pieces[arg.Cursor.Offset] = b
	s.size = max(s.size, arg.Cursor.Offset+b.Size())
	s.closed = arg.Close
	return json.RawMessage("null"), nil
}

func (c *call) sessionFinish() (any, *failure) {
	var arg struct {
		Cursor      sessionCursor
		Commit      commitInfo
		ContentHash string `json:"content_hash"`
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	b, fail := c.read(arg.ContentHash)
	if fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[arg.Cursor.SessionID]
	switch {
	case s == nil:
		return nil, refuse("lookup_failed/not_found")
	case s.concurrent && b.Size() > 0:
		return nil, refuse("concurrent_session_data_not_allowed")
	case s.concurrent && !s.closed:
		return nil, refuse("concurrent_session_not_closed")
	case arg.Cursor.Offset != s.size:
		return nil, refuse("lookup_failed/incorrect_offset")
	case b.Size() > 0:
		s.pieces[s.size] = b
		s.size += b.Size()
	}
	whole, fail := s.whole()
	if fail != nil {
		return nil, fail
	}
	n, fail := c.commit(arg.Commit, whole)
	if fail != nil {
		return nil, fail
	}
	delete(c.sessions, arg.Cursor.SessionID)
	return c.metadata(n, false), nil
}

// whole puts the pieces together.
func (s *session) whole() (blob, *failure) {
	var bodies []bodytest.Body
	var blocks []byte
	for at := int64(0); at < s.size; at += bodies[len(bodies)-1].Size() {
		b := s.pieces[at]
		if b.Size() == 0 {
			return blob{}, refuse("concurrent_session_missing_data")
		}
		bodies, blocks = append(bodies, b.Body), append(blocks, b.blocks...)
	}
	all := bodytest.Join(bodies...)
	if !s.concurrent { // its pieces may have any size
		blocks = hashes(all.Reader())
	}
	return blob{all, blocks}, nil
}

// ascii writes v as JSON for a header.
func ascii(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	var b strings.Builder
	for _, r := range string(text) {
		if r < 0x7f {
			b.WriteRune(r)
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, u)
		}
	}
	return b.String()
}
