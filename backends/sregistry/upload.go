// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/libapi"
)

// uploadDone is the message of an upload that was stored.
const uploadDone = "Upload Complete"

// upload is the old way: one request for the number of the collection, and one
// with the form that a browser would send. It cannot be resumed. It publishes as
// soon as it is whole, so its last bytes are held back until the digest of all
// is known.
func (p *push) upload(ctx context.Context) error {
	if err := p.n.checkUpload(); err != nil {
		return err
	}
	if p.lost {
		return backends.Saying(fs.ErrExist, "the server has lost the bytes of the image that has this name: delete it, and push again")
	}
	number, err := p.openUpload(ctx)
	if err != nil {
		return err
	}
	// The collection may have been made just now; the image may have come.
	if done, _, err := p.allowed(ctx); err != nil || done {
		return err
	}
	return p.c.signed(ctx, kindUpload, p.n, func(auth string) error { return p.sendForm(ctx, number, auth) })
}

// openUpload says what will come. The server makes the collection if need be.
func (p *push) openUpload(ctx context.Context) (number string, err error) {
	err = p.c.signed(ctx, kindPush, p.n, func(auth string) error {
		body := map[string]string{"collection": p.n.collection, "name": p.n.container, "tag": p.n.tag}
		req, err := httpx.NewRequest(ctx, http.MethodPost, p.c.url("/api/upload/chunked_upload"), body)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", auth)
		var opened struct {
			CID word `json:"cid"`
		}
		if err := p.c.object(req, &opened); err != nil {
			return err
		}
		if number = string(opened.CID); number == "" {
			return fmt.Errorf("%w: an upload without the number of its collection", backends.ErrBadAnswer)
		}
		return nil
	})
	return number, err
}

// sendForm sends the image.
func (p *push) sendForm(ctx context.Context, number, auth string) error {
	head, tail, boundary, err := p.form(number, auth)
	if err != nil {
		return err
	}
	content := p.whole()
	body := io.MultiReader(bytes.NewReader(head), content, strings.NewReader(tail))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.c.url("/upload"), io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = int64(len(head)) + p.src.Size + int64(len(tail))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	req.Header.Set("Authorization", auth)
	var said struct {
		Message string `json:"message"`
	}
	err = p.c.object(req, &said)
	if wrong := content.Failed(); wrong != nil {
		return wrong
	}
	if err == nil && said.Message != uploadDone {
		// "Filename too long", "… already exists.": with status 200.
		return fmt.Errorf("%w: the server says %.200q", fs.ErrInvalid, said.Message)
	}
	return err
}

// whole reads all of the content. Its end is held back until the digest is found
// to be right and, for the case that the answer is lost, the MD5 is saved.
func (p *push) whole() *libapi.Hashed {
	h := libapi.NewHashed(p.src.Content, 0, p.src.Size).WithMD5()
	h.Check = func() error {
		if err := errors.Join(libapi.SameDigest(p.src, h.SHA256()), p.src.MayCommit()); err != nil {
			return err
		}
		p.memo.State.Sent, p.memo.State.MD5 = true, h.MD5()
		p.memo.Save()
		return nil
	}
	var sent int64
	h.Tell = func(n int) {
		sent += int64(n)
		p.progress(sent)
	}
	return h
}

// form returns what stands before and after the image in the request.
func (p *push) form(number, auth string) (head []byte, tail, boundary string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, field := range [][2]string{{"SREGISTRY_EVENT", auth}, {"name", p.n.container}, {"collection", number}, {"tag", p.n.tag}} {
		if err := w.WriteField(field[0], field[1]); err != nil {
			return nil, "", "", err
		}
	}
	file := p.ref.Name + ":" + p.n.tag + ".sif" // as the sregistry client names it
	part := textproto.MIMEHeader{}
	part.Set("Content-Disposition", `form-data; name="file1"; filename="`+file+`"`)
	part.Set("Content-Type", "text/plain")
	if _, err := w.CreatePart(part); err != nil {
		return nil, "", "", err
	}
	return b.Bytes(), "\r\n--" + w.Boundary() + "--\r\n", w.Boundary(), nil
}
