// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// Publish seals the draft and publishes it where its target says; with
// Target.Async it returns once the draft is sealed and queued. After success the
// draft is gone (its data is the warm cache entry, or the local image). If the
// name has the same bytes already, that is success, whatever the policy. A second Publish
// of a draft waits for the first. If ctx ends before the registry has everything, the
// draft stays, sealed; the push goes on while another caller waits for it.
//
// Errors: those of CompleteImage if it is not a whole image, inspect.ErrMounted for
// one that was changed in place and still is; fs.ErrExist or
// backends.ErrChanged if the name means something else than it did when the
// copy began; those of backends.Pusher; those of spool.Draft.Seal.
func (u *Uploads) Publish(ctx context.Context, d *spool.Draft) error {
	info, err := d.Seal(ctx, gate(d.Info().Target))
	if err != nil {
		return pushError(info.Target.Remote, info.Target.Ref, err)
	}
	d.Supersede()
	// Only the registry knows whether the bytes are the same: success is not reported
	// before it says so.
	if info.Target.Async && info.Target.Replaces != spool.OnlySame && d.Withdrawn() == nil && u.queue.add(info.ID, maxPending) {
		return nil
	}
	return u.runs.publish(ctx, d, nil)
}

// upload is one try to publish a sealed draft.
func (u *Uploads) upload(ctx context.Context, d *spool.Draft, tell catalog.Progress) error {
	target := d.Info().Target
	release, err := u.turns.Lock(ctx, nameOf(target.Remote, target.Ref))
	if err != nil {
		return pushError(target.Remote, target.Ref, err)
	}
	defer release()
	target = d.Info().Target // an earlier upload to the same name may have changed it
	r, err := u.cat.Live(target.Remote)
	if err == nil {
		err = r.Takes(target.Ref)
	}
	if err != nil {
		return u.uploadFailed(ctx, d, target, err)
	}
	src, err := d.Begin()
	if err != nil {
		return pushError(target.Remote, target.Ref, err)
	}
	img, err := u.uploadSource(ctx, r, target, src, tell)
	if err != nil {
		return u.uploadFailed(ctx, d, target, err)
	}
	return u.uploaded(r, d, img)
}

// uploadSource pushes the sealed draft, unless the registry has it already.
func (u *Uploads) uploadSource(ctx context.Context, r catalog.Remote, target spool.Target, src backends.Source, tell catalog.Progress) (backends.Image, error) {
	if target.Replaces == spool.OnlySame {
		src.Replaces = ""
	}
	store := src.Progress
	src.Progress = func(stored int64) {
		store(stored)
		tell(stored, src.Size)
	}
	img, err := u.push(ctx, r, target.Ref, src)
	if target.Replaces == spool.OnlySame && errors.Is(err, fs.ErrExist) {
		err = Taken(target.Remote, target.Ref)
	}
	return img, err
}

// uploadFailed keeps the draft for another try.
func (u *Uploads) uploadFailed(ctx context.Context, d *spool.Draft, target spool.Target, cause error) error {
	note := cause
	if ctx.Err() != nil {
		note = nil // the caller gave up; nothing was refused
		if !errors.Is(cause, context.Canceled) {
			cause = &backends.Error{Op: "push", Remote: target.Remote, Ref: target.Ref, Err: ctx.Err()}
		}
	}
	if err := d.End(note); err != nil {
		u.log.Warn("the state of an upload could not be noted", "draft", d.Info().ID, "err", err)
	}
	if d.Withdrawn() == nil && (final(cause) || errors.Is(cause, fs.ErrPermission)) {
		d.Answered()
	}
	return pushError(target.Remote, target.Ref, cause)
}

// uploaded ends a draft that the registry has: a failure here is logged, and no error. The
// draft is removed last: if the program ends before that, the next one finds it, learns
// that the registry has its bytes, and does the rest.
func (u *Uploads) uploaded(r catalog.Remote, d *spool.Draft, img backends.Image) error {
	s := u.cat.Opened() // it is not closed before this ends
	info, told := d.Info(), false
	err := d.Publish(img.Version, func(path string) error {
		if !r.Local() && s.Cache != nil && index.IsSHA256(img.Digest) {
			if err := s.Cache.Adopt(path, img.Digest, info.Size); err != nil {
				u.log.Warn("a pushed image could not be kept in the cache", "image", info.Target.Ref.String(), "err", err)
			}
		}
		u.cat.Published(r, info.Target.Ref, img)
		u.rebase(s, info, img) // after Published: a Create meanwhile sees that count and looks again
		told = true
		return nil
	})
	if err != nil {
		u.log.Warn("a published draft could not be removed", "draft", info.ID, "err", err)
	}
	if !told {
		u.cat.Published(r, info.Target.Ref, img)
	}
	return nil
}

// rebase lets the later drafts for the same name replace the version that this one became:
// they were begun after it, or are being written at the same time, or come from the
// same open file. A draft that failed before this one was begun is not one of them.
func (u *Uploads) rebase(s *catalog.State, done spool.Info, img backends.Image) {
	u.published.Add(1)
	for _, later := range s.Spool.Drafts() {
		t := later.Target
		if later.ID == done.ID || t.Replaces == spool.OnlySame || t.Remote != done.Target.Remote || t.Ref != done.Target.Ref {
			continue
		}
		comes := later.ID > done.ID || s.Spool.Held(later.ID) || later.State == spool.Writing || later.Queued()
		if t.Follows != done.ID && (!comes || t.Replaces != done.Target.Replaces || !u.overwritable(t.Remote)) {
			continue
		}
		d, err := s.Spool.Draft(later.ID)
		if err != nil {
			continue
		}
		t.Replaces = img.Version
		if err := d.Retarget(t); err != nil {
			u.log.Warn("a later upload will find the name taken", "draft", later.ID, "err", err)
		}
		shut(d)
	}
}

func (u *Uploads) overwritable(remote string) bool {
	r, err := u.cat.Remote(remote)
	return err == nil && r.Policy.Overwrite
}

// Retry publishes a failed, pending or incomplete upload now, and waits for it.
// Errors: fs.ErrNotExist if there is no such draft; fs.ErrInvalid for a file whose
// name is no image's; those of Publish.
func (u *Uploads) Retry(ctx context.Context, id string, p catalog.Progress) error {
	s, err := u.cat.State()
	if err != nil {
		return err
	}
	d, err := s.Spool.Draft(id)
	if err != nil {
		return err
	}
	defer shut(d)
	target := d.Info().Target
	if target.File != "" {
		return fmt.Errorf("upload %s: %q is no image's name: rename the file in the mount: %w", id, target.File, fs.ErrInvalid)
	}
	if _, err := d.Seal(ctx, gate(target)); err != nil {
		return pushError(target.Remote, target.Ref, err)
	}
	return u.runs.publish(ctx, d, p)
}
