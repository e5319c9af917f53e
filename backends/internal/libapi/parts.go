// SPDX-License-Identifier: Apache-2.0

package libapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/sregfs/sregfs/backends"
)

// InParts sends the bytes part by part, and goes on where State says that it was
// broken off.
//
// Errors: ErrNoParts; those of Send.
func (u *Upload) InParts(ctx context.Context) error {
	if err := u.open(ctx); err != nil {
		return err
	}
	whole := sha256.New()
	for number, off := 1, int64(0); off < u.Source.Size; number, off = number+1, off+u.State.PartSize {
		n := min(u.State.PartSize, u.Source.Size-off)
		part := NewHashed(u.Source.Content, off, n)
		if _, err := io.Copy(whole, part); err != nil {
			return err
		}
		sum := part.SHA256()
		if number <= len(u.State.Parts) && u.State.Parts[number-1].SHA256 == sum {
			u.progress(off + n)
			continue
		}
		u.State.Parts = u.State.Parts[:min(len(u.State.Parts), number-1)]
		token, err := u.part(ctx, number, off, n, sum)
		if err != nil {
			return u.partError(ctx, err, number)
		}
		u.State.Parts = append(u.State.Parts, Part{SHA256: sum, Token: token})
		u.Save()
	}
	if err := SameDigest(u.Source, hex.EncodeToString(whole.Sum(nil))); err != nil {
		return err
	}
	completed := make([]map[string]any, len(u.State.Parts))
	for i, part := range u.State.Parts {
		completed[i] = map[string]any{"partNumber": i + 1, "token": part.Token}
	}
	err := u.Server(ctx, http.MethodPut, u.path()+"/_multipart_complete",
		map[string]any{"uploadID": u.State.Upload, "completedParts": completed}, nil)
	if err != nil && ctx.Err() == nil && !errors.Is(err, backends.ErrUnavailable) {
		u.forget(ctx) // what the store has is not what was noted
	}
	return err
}

// open begins an upload in parts, unless one is under way for the image.
func (u *Upload) open(ctx context.Context) error {
	s := u.State
	if s.Image == u.Image && s.Upload != "" && 0 < s.PartSize && s.PartSize <= maxPart {
		return nil
	}
	*s = State{}
	var opened struct {
		UploadID string            `json:"uploadID"`
		PartSize int64             `json:"partSize"`
		Options  map[string]string `json:"options"`
	}
	err := u.Server(ctx, http.MethodPost, u.path()+"/_multipart", map[string]any{"filesize": u.Source.Size}, &opened)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: %v", ErrNoParts, err)
	}
	if err != nil {
		return err
	}
	if opened.UploadID == "" || opened.PartSize <= 0 || opened.PartSize > maxPart || u.Source.Size/opened.PartSize >= maxParts {
		return fmt.Errorf("%w: an upload in parts of %d bytes", backends.ErrBadAnswer, opened.PartSize)
	}
	compliant := opened.Options["s3compliant"]
	*s = State{Image: u.Image, Upload: opened.UploadID, PartSize: opened.PartSize, NoSums: compliant != "" && compliant != "true"}
	u.Save()
	return nil
}

// forget drops what is known of the upload, and tells the server where it wants to
// know.
func (u *Upload) forget(ctx context.Context) {
	gone := u.State.Upload
	*u.State = State{}
	u.Save()
	if !u.Aborts || gone == "" {
		return
	}
	if err := u.Server(ctx, http.MethodPut, u.path()+"/_multipart_abort", map[string]any{"uploadID": gone}, nil); err != nil {
		u.Log.Debug("an upload that was given up stays on the server", "upload", gone, "err", err)
	}
}

// part sends one part. Its bytes are hashed a second time, and the end is held back
// if they changed.
func (u *Upload) part(ctx context.Context, number int, off, n int64, sum string) (token string, err error) {
	announced := sum
	if u.State.NoSums {
		announced = ""
	}
	var signed struct {
		PresignedURL string `json:"presignedURL"`
	}
	body := map[string]any{"partSize": n, "uploadID": u.State.Upload, "partNumber": number, "sha256sum": announced}
	if err := u.Server(ctx, http.MethodPut, u.path()+"/_multipart", body, &signed); err != nil {
		return "", err
	}
	h := NewHashed(u.Source.Content, off, n)
	h.Check = func() error {
		if h.SHA256() == sum {
			return nil
		}
		return fmt.Errorf("%w: the source changed while it was read", backends.ErrCorrupt)
	}
	h.Tell = u.tell(off)
	token, err = u.put(ctx, signed.PresignedURL, h, n, announced, true)
	if err == nil && token == "" {
		err = fmt.Errorf("%w: a part was stored without an ETag", backends.ErrBadAnswer)
	}
	return token, err
}

// partError decides how to go on after a part was refused: without parts if it was
// the first, else from the beginning.
func (u *Upload) partError(ctx context.Context, err error, number int) error {
	if !stale(err) {
		return err
	}
	u.forget(ctx)
	if number == 1 {
		return fmt.Errorf("%w: %v", ErrNoParts, err)
	}
	return fmt.Errorf("%w: the upload is not known any more: %v", backends.ErrUnavailable, err)
}
