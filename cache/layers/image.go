// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// Options are those of an Image.
type Options struct {
	// Context is that of all requests, which serve many readers.
	Context context.Context //nolint:containedctx // as it says

	Dir    string // where the indexes of layers are kept, "" if nowhere
	Origin string // who vouches for what was not verified: a name of a file
	// Whole opens a whole file of the cache by the name that Held was told; nil if it is not there.
	Whole  func(name string) *os.File
	Digest string // of the image, see vsif.Digest
	Size   int64  // of its file, in bytes
}

// An Image is a container image whose file is being made. For concurrent use.
type Image struct {
	opts    Options
	builder chan struct{} // full while somebody makes the tables

	mu     sync.Mutex           // guards the fields below
	asked  map[string]*question // by source
	source vsif.Source
	plan   *vsif.Plan // set once, with layers
	layers []*layer
	made   *made
	damage error // what is wrong with the image for good
	closed bool
}

// A Source is where the layers are fetched.
type Source struct {
	Client *backends.Client
	Image  backends.Image
}

func (s Source) key() string { return s.Client.Name() + "\x00" + s.Image.Ref.String() }

// New returns an image of which nothing was asked for yet.
func New(opts Options) *Image {
	return &Image{opts: opts, builder: make(chan struct{}, 1), asked: map[string]*question{}}
}

// Prepare returns once it is known what the image is made of. It asks the registry, unless
// that is known; ctx ends the wait only.
//
// Errors: those of backends.Client.Layers; backends.ErrBadAnswer; vsif.ErrLayer.
func (im *Image) Prepare(ctx context.Context, src Source) error {
	im.mu.Lock()
	q := im.asked[src.key()]
	if q == nil {
		q = &question{done: make(chan struct{})}
		im.asked[src.key()] = q
		go im.ask(q, src)
	}
	im.mu.Unlock()
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A question is what one source is asked for.
type question struct {
	done  chan struct{} // closed once the fields below are valid
	blobs []backends.Image
	err   error
}

// ask asks the registry. After an error, whoever needs it next asks again.
func (im *Image) ask(q *question, src Source) {
	defer close(q.done)
	answer, err := src.Client.Layers(backends.Demanded(im.opts.Context, always), src.Image)
	im.mu.Lock()
	if err == nil && im.plan == nil {
		err = im.layOut(answer)
	}
	if im.closed {
		im.closeLayers()
		err = cmp.Or(err, fetch.ErrClosed)
	}
	q.blobs, q.err = answer.Blobs, err
	if err != nil {
		delete(im.asked, src.key())
	}
	im.mu.Unlock()
	if err != nil {
		q.err = im.failed(src, err)
	}
}

// always is the demand of a reader who waits.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// layOut plans the file. Call with mu held.
func (im *Image) layOut(answer backends.Layers) error {
	if vsif.Digest(answer.Manifest) != im.opts.Digest {
		return fmt.Errorf("%w: another manifest than %s", backends.ErrBadAnswer, im.opts.Digest)
	}
	blobs, tars, err := describe(answer.Manifest, answer.Config)
	if err != nil {
		return err
	}
	if len(blobs) != len(answer.Blobs) || len(blobs) != len(answer.Bounds) {
		return fmt.Errorf("%w: %d layers instead of %d", backends.ErrBadAnswer, len(answer.Blobs), len(blobs))
	}
	plan, err := vsif.NewPlan(int64(len(answer.Manifest)), int64(len(answer.Config)), answer.Bounds)
	if err != nil {
		return err
	}
	if plan.Size != im.opts.Size {
		return fmt.Errorf("%w: a file of %d bytes, and not of %d", backends.ErrBadAnswer, plan.Size, im.opts.Size)
	}
	var all []*layer
	for i, d := range blobs {
		l, err := newLayer(d, tars[i], answer.Bounds[i], im.opts.Dir, im.opts.Origin)
		if err != nil {
			for _, l := range all {
				l.close()
			}
			return err
		}
		all = append(all, l)
	}
	im.source = vsif.Source{Manifest: answer.Manifest, Config: answer.Config, Bounds: answer.Bounds}
	im.plan, im.layers = plan, all
	return nil
}

// describe returns the layers that a manifest names, and the digests of their tars, which its
// configuration does. Errors: backends.ErrBadAnswer; vsif.ErrLayer.
func describe(manifest, config []byte) (blobs []ocispec.Descriptor, tars []digest.Digest, err error) {
	var m ocispec.Manifest
	var c ocispec.Image
	if err := errors.Join(json.Unmarshal(manifest, &m), json.Unmarshal(config, &c)); err != nil {
		return nil, nil, fmt.Errorf("%w: %v", backends.ErrBadAnswer, err)
	}
	if m.Config.Digest.Validate() != nil || m.Config.Digest.Algorithm().FromBytes(config) != m.Config.Digest {
		return nil, nil, fmt.Errorf("%w: another configuration than %s", backends.ErrBadAnswer, m.Config.Digest)
	}
	tars = c.RootFS.DiffIDs
	if len(tars) != len(m.Layers) {
		return nil, nil, fmt.Errorf("%w: %d layers, and the digests of %d tars", vsif.ErrLayer, len(m.Layers), len(tars))
	}
	for i, d := range tars {
		if err := errors.Join(d.Validate(), m.Layers[i].Digest.Validate()); err != nil {
			return nil, nil, fmt.Errorf("%w: %v", vsif.ErrLayer, err)
		}
	}
	return m.Layers, tars, nil
}

// blobOf returns a layer as it is to be asked for at a source.
func (im *Image) blobOf(src Source, layer int) backends.Image {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.asked[src.key()].blobs[layer]
}

// Cold returns where the layers are of which nothing is known before they were read from
// their start to their end. Prepare has succeeded.
func (im *Image) Cold() (ranges [][2]int64) {
	im.mu.Lock()
	made := im.made
	im.mu.Unlock()
	if made != nil {
		return nil
	}
	for i, l := range im.layers {
		if _, ok := l.known(); !ok && !l.packed {
			_, start, end := im.partOf(im.plan.Layers[i].Offset)
			ranges = append(ranges, [2]int64{start, end})
		}
	}
	return ranges
}

// Unit returns what is best fetched together with [from, to) of the file: the first part of
// it that one transfer brings. It begins and ends with a chunk. Prepare has succeeded.
func (im *Image) Unit(from, to int64) (first, last int64) {
	region, start, end := im.partOf(from)
	if region < 0 {
		return start, end
	}
	first, last = im.layers[region].unit(from-start, min(to, end)-start, end-start)
	return start + first, start + last
}

// partOf returns which part of the file a byte lies in, -1 for none of the layers.
func (im *Image) partOf(off int64) (layer int, start, end int64) {
	all := im.plan.Layers
	i := sort.Search(len(all), func(i int) bool { return all[i].Offset > off }) - 1
	switch {
	case i < 0:
		return -1, 0, im.plan.Head().End()
	case off >= im.plan.Room.Offset:
		return -1, im.plan.Room.Offset, im.plan.Size
	case i+1 < len(all):
		return i, all[i].Offset, all[i+1].Offset
	}
	return i, all[i].Offset, im.plan.Room.Offset
}

// Open returns a range of the file, which lies in one part of it. Prepare has succeeded.
func (im *Image) Open(ctx context.Context, src Source, opts backends.TransferOptions) fetch.Transfer {
	if opts.Slot != nil {
		opts.Slot.Release() // what it needs of the registry, and when, it asks for itself
		opts.Slot = nil
	}
	t := &transfer{ctx: ctx, image: im, src: src, opts: opts, pos: opts.Off, end: opts.Off + opts.N}
	t.urgent.Store(opts.Demanded)
	t.region, _, _ = im.partOf(opts.Off)
	if err := im.Prepare(ctx, src); err != nil {
		t.err = err
	}
	return t
}

// Held tells that the file is whole under a name: other images with the same layers take them from there.
func (im *Image) Held(name string) {
	im.mu.Lock()
	plan, all := im.plan, im.layers
	im.mu.Unlock()
	for i, l := range all {
		l.note(held{name, plan.Layers[i].Offset})
	}
}

// opener returns what opens ranges of a layer as the registry has it.
func (im *Image) opener(src Source, layer int, opts backends.TransferOptions) opener {
	return func(ctx context.Context, off, n int64, urgent bool) *backends.Transfer {
		opts := opts
		opts.Off, opts.N, opts.Demanded = off, n, urgent
		opts.Slot, opts.Whole, opts.Restart, opts.Repeat = nil, false, nil, nil
		return src.Client.Transfer(ctx, im.blobOf(src, layer), opts)
	}
}

// An opener opens n bytes from off of a layer as the registry has it; urgent says that a reader waits.
type opener func(ctx context.Context, off, n int64, urgent bool) *backends.Transfer

// Damage returns what is wrong with the image for good, nil if nothing is.
func (im *Image) Damage() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.damage
}

// failed notes an error of a transfer, and returns it as readers are told.
func (im *Image) failed(src Source, err error) error {
	unfitting, corrupt := errKind(err)
	if !unfitting && !corrupt {
		return err
	}
	if unfitting {
		err = unfit(err)
		src.Client.Unfit(src.Image, err)
	}
	im.mu.Lock()
	im.damage = cmp.Or(im.damage, err)
	all := im.layers
	im.mu.Unlock()
	for _, l := range all {
		l.forget()
	}
	return err
}

// Close closes what the image has open. Nothing reads it any more.
func (im *Image) Close() {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.closed = true
	im.closeLayers()
}

// closeLayers is called with mu held.
func (im *Image) closeLayers() {
	for _, l := range im.layers {
		l.close()
	}
}

// A made is what of the file stands in no layer.
type made struct {
	pieces   []vsif.Piece
	expanded []vsif.Expansion
}

// build returns what of the file stands in no layer, once all layers were read.
func (im *Image) build(ctx context.Context, src Source, opts backends.TransferOptions) (*made, error) {
	select {
	case im.builder <- struct{}{}:
		defer func() { <-im.builder }()
	case <-ctx.Done():
		return nil, fetch.ErrClosed
	}
	im.mu.Lock()
	m := im.made
	im.mu.Unlock()
	if m != nil {
		return m, nil
	}
	source := im.source
	source.Tars = nil
	for i, l := range im.layers {
		size, err := im.complete(ctx, src, i, l, opts)
		if err != nil {
			return nil, err
		}
		source.Tars = append(source.Tars, size)
	}
	tree := vsif.NewTree()
	for _, l := range im.layers {
		entries, err := l.entries()
		if err == nil {
			err = tree.Add(entries)
		}
		if err != nil {
			return nil, err
		}
	}
	m, err := buildOf(im.plan, tree, source)
	if err != nil {
		return nil, err
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	im.made = m
	return m, nil
}

func buildOf(plan *vsif.Plan, tree *vsif.Tree, source vsif.Source) (*made, error) {
	built, err := plan.Build(tree, source)
	if err != nil {
		return nil, err
	}
	return &made{built.Pieces, built.Expanded}, nil
}

const (
	// grace is for how long a layer may be read by nobody before who needs its headers reads it.
	grace     = 2 * time.Second
	graceStep = 20 * time.Millisecond
)

// complete returns the size of a layer's tar once it was read to its end. As a rule others
// read it, who keep what they read.
func (im *Image) complete(ctx context.Context, src Source, i int, l *layer, opts backends.TransferOptions) (int64, error) {
	if l.packed {
		return l.readTOC(ctx, im.opener(src, i, opts))
	}
	for idle := time.Duration(0); ; idle += graceStep {
		if size, ok := l.known(); ok {
			return size, nil
		}
		if err := im.Damage(); err != nil {
			return 0, err
		}
		if abandoned(opts) {
			return 0, fetch.ErrClosed
		}
		if len(l.extender) > 0 {
			idle = 0
		}
		if idle >= grace {
			break
		}
		if !backends.Pause(ctx, graceStep, nil) {
			return 0, fetch.ErrClosed
		}
	}
	region := im.plan.Layers[i]
	t := &transfer{ctx: ctx, image: im, src: src, opts: opts, region: i, pos: region.Offset, end: region.End(), buf: make([]byte, chunks.Size)}
	t.urgent.Store(true)
	defer t.Close()
	if err := t.start(l, l.bound, l.bound); err != nil {
		return 0, err
	}
	for t.stream != nil {
		if abandoned(opts) {
			return 0, fetch.ErrClosed
		}
		_, err := t.stream.next(t.buf)
		if size, ok := l.known(); ok {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
	}
	size, _ := l.known()
	return size, nil
}

// fill fills p, which stands at an offset of the file and is zeros, with what stands there in
// no layer; expand does that for one sparse file.
func (m *made) fill(p []byte, off int64, expand func(e vsif.Expansion, p []byte, off int64) error) error {
	for _, one := range m.pieces {
		if from := one.Offset - off; from < int64(len(p)) && one.Offset+int64(len(one.Text)) > off {
			copy(p[max(from, 0):], one.Text[max(-from, 0):])
		}
	}
	for _, one := range m.expanded {
		if one.Offset < off+int64(len(p)) && one.Offset+one.Stored() > off {
			if err := expand(one, p, off); err != nil {
				return err
			}
		}
	}
	return nil
}

// NextData returns the first stretch from off on that is no hole; ok is false if there is
// none. Where nothing is known yet, all is data.
func (im *Image) NextData(off int64) (start, end int64, ok bool) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.made == nil {
		return off, im.opts.Size, off < im.opts.Size
	}
	start, end = im.opts.Size, im.opts.Size
	note := func(at, size int64) {
		if at+size > off && at < start {
			start, end = max(at, off), at+size
		}
	}
	for _, one := range im.made.pieces {
		note(one.Offset, int64(len(one.Text)))
	}
	for _, one := range im.made.expanded {
		note(one.Offset, one.Stored())
	}
	for i, l := range im.layers {
		if size, ok := l.known(); ok {
			note(im.plan.Layers[i].Offset, size)
		}
	}
	return start, end, start < im.opts.Size
}
