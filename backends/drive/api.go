// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/google"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	folderType   = "application/vnd.google-apps.folder"
	shortcutType = "application/vnd.google-apps.shortcut"
	ownTypes     = "application/vnd.google-apps." // what begins so has no bytes
	imageType    = "application/octet-stream"     // which the sregistry client asks for

	fileFields = "id,name,mimeType,size,md5Checksum,sha256Checksum,headRevisionId,createdTime,modifiedTime,parents,trashed,properties,shortcutDetails,webViewLink"

	pageSize = 1000 // the most that there can be
	// maxPages is how many a listing may have.
	maxPages = 1000
	// maxPage is the size in bytes above which a page is refused: a file can have 30 properties
	// of 124 bytes.
	maxPage = 16 << 20
)

// A file is a files resource.
// https://developers.google.com/workspace/drive/api/reference/rest/v3/files
type file struct {
	Kind       string            `json:"kind,omitempty"`
	ID         string            `json:"id,omitempty"`
	Name       string            `json:"name,omitempty"`
	MimeType   string            `json:"mimeType,omitempty"`
	Size       string            `json:"size,omitempty"`
	MD5        string            `json:"md5Checksum,omitempty"`
	SHA256     string            `json:"sha256Checksum,omitempty"`
	Head       string            `json:"headRevisionId,omitempty"`
	Created    time.Time         `json:"createdTime,omitzero"`
	Modified   time.Time         `json:"modifiedTime,omitzero"`
	Parents    []string          `json:"parents,omitempty"`
	Trashed    bool              `json:"trashed,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
	Link       string            `json:"webViewLink,omitempty"`
	Shortcut   *struct {
		Target string `json:"targetId"`
		Type   string `json:"targetMimeType"`
	} `json:"shortcutDetails,omitempty"`
}

// folder returns the id of the folder that f is or leads to.
func (f file) folder() (id string, ok bool) {
	if f.Shortcut != nil {
		return f.Shortcut.Target, f.Shortcut.Type == folderType
	}
	return f.ID, f.MimeType == folderType
}

// hasBytes reports whether f, or what it leads to, is a file as others know them.
func (f file) hasBytes() bool {
	kind := f.MimeType
	if f.Shortcut != nil {
		kind = f.Shortcut.Type
	}
	return !strings.HasPrefix(kind, ownTypes)
}

// version is another one for other bytes. Where no revision is told, what the bytes are is.
func (f file) version() string {
	switch {
	case f.Head != "":
		return f.Head
	case f.MD5 != "":
		return noRevision + f.MD5 + "@" + f.Modified.UTC().Format(time.RFC3339Nano)
	}
	return ""
}

// noRevision begins the versions that are no revisions.
const noRevision = "md5:"

func (f file) digest() string {
	switch {
	case f.SHA256 != "":
		return "sha256:" + strings.ToLower(f.SHA256)
	case f.MD5 != "":
		return "md5:" + strings.ToLower(f.MD5)
	}
	return ""
}

// size returns the count of bytes.
//
// Errors: backends.ErrBadAnswer.
func (f file) size() (int64, error) {
	n, err := strconv.ParseInt(f.Size, 10, 64)
	if err == nil {
		err = backends.CheckSize(n)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: a file of %.40q bytes", backends.ErrBadAnswer, f.Size)
	}
	return n, nil
}

// address is that of a resource; parts of path are escaped already.
func (c *client) address(path string, query url.Values) string {
	return c.Address() + "/drive/v3/" + path + "?" + query.Encode()
}

// all is a query that does not stop at My Drive.
func all(pairs ...string) url.Values {
	query := url.Values{"supportsAllDrives": {"true"}}
	for i := 0; i+1 < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	return query
}

// call sends a request and decodes the answer into out, which may be nil.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	req, err := httpx.NewRequest(ctx, method, c.address(path, query), body)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err := httpx.ReadAll(resp.Body)
		return err
	}
	return decode(resp.Body, out)
}

// do is google.Login.Do with the refusals that Drive has of its own.
func (c *client) do(req *http.Request, ok ...int) (*http.Response, error) {
	// Without a login Drive says 403, as to somebody who may not.
	if known, err := c.Known(req.Context()); err != nil {
		return nil, err
	} else if !known {
		return nil, fmt.Errorf("%w: there is no login for remote %s: set credentials, or run \"sreg login %s\"", backends.ErrUnauthorized, c.remote, c.remote)
	}
	resp, err := c.Do(req, ok...)
	if err != nil {
		return nil, c.refused(err)
	}
	return resp, nil
}

// refused says what a refusal of Drive means.
// https://developers.google.com/workspace/drive/api/guides/handle-errors
func (c *client) refused(err error) error {
	if google.Status(err) != http.StatusForbidden {
		return err
	}
	saying := func(sentinel error, text string) error {
		return &google.Error{Status: http.StatusForbidden, Reason: google.Reason(err), Err: backends.Saying(sentinel, "%s (%v)", text, err)}
	}
	switch google.Reason(err) {
	case "storageQuotaExceeded", "quotaExceeded":
		return saying(syscall.EDQUOT, "the Drive has no room for it; a service account has none of its own, and needs a shared drive: set shared_drive")
	case "teamDriveFileLimitExceeded", "numChildrenInNonRootLimitExceeded":
		return saying(syscall.EDQUOT, "the folder or shared drive holds as many files as it can")
	case "dailyLimitExceeded":
		return &backends.DelayError{Err: saying(backends.ErrRateLimited, "rate limited: the project of the login has asked as often as it may in a day"), After: time.Hour}
	case "downloadQuotaExceeded":
		return saying(fs.ErrPermission, "this file was downloaded too often; Google lets nobody read it for up to a day")
	case "cannotDownloadAbusiveFile":
		return saying(fs.ErrPermission, "Google takes this file for malware or spam, and gives it to nobody; its owner can ask for a review on its page in Drive")
	case "insufficientPermissions", "insufficientScopes", "ACCESS_TOKEN_SCOPE_INSUFFICIENT":
		return saying(backends.ErrUnauthorized, fmt.Sprintf("not logged in: the login lacks the scope %s: run \"sreg login %s\", or "+
			"\"gcloud auth application-default login --scopes=%s,https://www.googleapis.com/auth/cloud-platform\"", scope, c.remote, scope))
	}
	return err
}

// decode reads an answer in JSON.
func decode(body io.Reader, v any) error {
	text, err := io.ReadAll(io.LimitReader(body, maxPage+1))
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case err != nil:
		return backends.TransportError(err)
	case len(text) > maxPage:
		return fmt.Errorf("%w: an answer of more than %d bytes", backends.ErrBadAnswer, maxPage)
	}
	return httpx.Decode(text, v)
}

func isKind(kind, want string) error {
	if kind != want {
		return fmt.Errorf("%w: an answer of the kind %.40q, not %q", backends.ErrBadAnswer, kind, want)
	}
	return nil
}

// one is call for an answer that is a file.
func (c *client) one(ctx context.Context, method, path string, query url.Values, body any) (file, error) {
	query.Set("fields", "kind,"+fileFields)
	var f file
	if err := c.call(ctx, method, path, query, body, &f); err != nil {
		return file{}, err
	}
	return f, f.check()
}

func (f file) check() error {
	if err := isKind(f.Kind, "drive#file"); err != nil {
		return err
	}
	if f.ID == "" {
		return fmt.Errorf("%w: a file without an id", backends.ErrBadAnswer)
	}
	return nil
}

func (c *client) get(ctx context.Context, id string) (file, error) {
	return c.one(ctx, http.MethodGet, "files/"+url.PathEscape(id), all(), nil)
}

// A change is the body of files.update. A property that is nil goes.
type change struct {
	Name       string             `json:"name,omitempty"`
	MimeType   string             `json:"mimeType,omitempty"`
	Parents    []string           `json:"parents,omitempty"` // of what is new
	Modified   string             `json:"modifiedTime,omitempty"`
	Properties map[string]*string `json:"properties,omitempty"`
	Trashed    *bool              `json:"trashed,omitempty"`
}

func (c *client) update(ctx context.Context, id string, query url.Values, body change) (file, error) {
	return c.one(ctx, http.MethodPatch, "files/"+url.PathEscape(id), query, body)
}

// erase takes away what nobody but us knows. Who may not do that (in a shared drive, most
// members) may move it to the trash.
func (c *client) erase(ctx context.Context, id string) error {
	err := c.call(ctx, http.MethodDelete, "files/"+url.PathEscape(id), all(), nil, nil)
	if errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized) {
		yes := true
		_, err = c.update(ctx, id, all(), change{Trashed: &yes})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// query yields the files that q chooses. An error after the first page is no word about
// the whole.
// https://developers.google.com/workspace/drive/api/guides/ref-search-terms
func (c *client) query(ctx context.Context, q string) iter.Seq2[file, error] {
	return func(yield func(file, error) bool) {
		query := all("q", q, "fields", "kind,nextPageToken,incompleteSearch,files("+fileFields+")", "pageSize", strconv.Itoa(pageSize),
			"includeItemsFromAllDrives", "true", "spaces", "drive", "corpora", "user")
		if c.drive != "" {
			query.Set("corpora", "drive")
			query.Set("driveId", c.drive)
		}
		tokens := map[string]bool{}
		for {
			var page struct {
				Kind       string
				Next       string `json:"nextPageToken"`
				Incomplete bool   `json:"incompleteSearch"`
				Files      []file
			}
			err := c.call(ctx, http.MethodGet, "files", query, nil, &page)
			if err == nil {
				err = isKind(page.Kind, "drive#fileList")
			}
			if err == nil && page.Incomplete {
				err = fmt.Errorf("%w: Drive has not looked everywhere", backends.ErrUnavailable)
			}
			if err == nil && (tokens[page.Next] || len(tokens) > maxPages) {
				err = fmt.Errorf("%w: a listing without an end", backends.ErrBadAnswer)
			}
			if err != nil && len(tokens) > 0 {
				err = backends.BrokenOff(err)
			}
			if err != nil {
				yield(file{}, err)
				return
			}
			for _, f := range page.Files {
				if f.ID == "" || f.Name == "" || f.Trashed {
					continue
				}
				if !yield(f, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			tokens[page.Next] = true
			query.Set("pageToken", page.Next)
		}
	}
}

// quote is a string of a query.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
