// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"
)

// A Backend is one registry. Its methods, and those of the capabilities below,
// may be called from many goroutines at once.
//
// A backend returns the bare sentinel of errors.go, with detail added by %w; it
// neither retries nor wraps with the operation: [Client] does both.
type Backend interface {
	// Stat reports the image that ref names now. If ref.Version is set the
	// result is exactly that version, whatever ref.Tag says.
	// The result's Ref is ref as the registry spells it, without a Version.
	//
	// Errors:
	//   - fs.ErrNotExist if there is no such image.
	//   - fs.ErrInvalid if the registry could not hold such a name.
	//   - ErrUnauthorized, fs.ErrPermission, ErrRateLimited, ErrUnavailable, ErrBadAnswer.
	Stat(ctx context.Context, ref Ref) (Image, error)

	// Open returns n bytes of img from offset off; n < 0 means to the end.
	// Bytes past the end are left out: the body is then shorter, or empty.
	// The bytes are those of img.Version: when the registry holds another
	// version under the name by now, Open fails. The caller closes the body.
	//
	// Errors: those of Stat, and
	//   - ErrChanged if the version is gone.
	//   - errors.ErrUnsupported for off > 0 if the service sends only whole images:
	//     the caller then reads from 0.
	Open(ctx context.Context, img Image, off, n int64) (io.ReadCloser, error)
}

// An Image is what a Ref names now. It never changes: a moved tag is another
// Image.
type Image struct {
	Ref      Ref
	Size     int64             // bytes; -1 if only known once opened
	Digest   string            // "sha256:…", "md5:…", "oci-archive2:…" (package archive), or "" if the service keeps none
	Version  string            // opaque validator: differs whenever the bytes do (digest, ETag, rev, generation)
	Modified time.Time         // of the file that was pushed, where the service keeps it, else when it was published; zero if it does not say
	Labels   map[string]string // what the listing already tells; may be nil
	URL      string            // where a person would look at it; may be ""
	Mode     fs.FileMode       // permissions of the file where it is kept on this machine, else 0
	GID      uint32            // its group, if Mode is set
	Format   string            // one of Formats, or "" if only the bytes tell (then taken for "sif")
}

// An Entry is one thing that a listing tells: a collection below the one listed
// or an image in it.
type Entry struct {
	Collection string // full path of a child collection; "" for an image
	Image      Image  // an image. With an empty Version the listing told only the name, and a guess of the Format: Stat tells the rest

	// Untold, if not nil, is why the registry does not tell this account a part of
	// the listing: the tags of Image.Ref.Name or, if that is empty, names that
	// nobody knows. The rest is whole; names known before are not gone.
	Untold error
}

// A Lister can say what a collection holds.
type Lister interface {
	// List yields the images and the child collections that lie directly in
	// collection ("" is the root), in any order, each once. After a non-nil
	// error the sequence ends. Breaking out early releases all resources.
	// A sequence that ends without an error has told all that there is, save for
	// what an Entry with Untold stands for.
	//
	// Errors: those of Stat; fs.ErrNotExist if there is no such collection;
	// errors.ErrUnsupported if this collection (often the root) cannot be listed.
	// Only the first answer of the service can mean these two: see BrokenOff.
	List(ctx context.Context, collection string) iter.Seq2[Entry, error]
}

// A Searcher can find images by a query of its service.
type Searcher interface {
	// Search yields the images that match query, a plain word or words.
	Search(ctx context.Context, query string) iter.Seq2[Image, error]
}

// A Pusher can take a new image.
type Pusher interface {
	// Push stores src under ref and returns the image it now names. Nothing is
	// visible under ref before all of src is stored and checked; on an error ref
	// names what it named before.
	//
	// A push of the bytes that ref names already may succeed, whatever src.Replaces
	// says, and must where Stat does not tell their SHA-256: Client compares that.
	//
	// Errors: those of Stat, and
	//   - fs.ErrInvalid if the service would store the image under another name
	//     than ref, or has one there that it does not tell from ref.
	//   - fs.ErrExist if src.Replaces is "" and ref names an image already.
	//   - ErrChanged if ref does not name the version src.Replaces any more.
	//   - ErrCorrupt if the service stored other bytes than were sent.
	Push(ctx context.Context, ref Ref, src Source) (Image, error)
}

// A Deleter can remove an image.
type Deleter interface {
	// Delete removes the name img.Ref, provided that it still means img.Version.
	// Other tags of the same bytes stay. With a version in img.Ref nothing else
	// goes with it: where a name has several versions at once (older ones,
	// architectures), the others stay, or all of them if the service cannot do that.
	//
	// Errors: those of Stat; ErrChanged if the name means another version now.
	Delete(ctx context.Context, img Image) error
}

// A Mover can give an image another name without its bytes travelling.
type Mover interface {
	// Move gives img the name to, and takes img.Ref from it, provided that it still
	// means img.Version. At no moment has the image neither name. What to means is
	// replaced only if that is the version replaces, as in Source. On an error both
	// names mean what they meant before.
	//
	// Errors: those of Stat; fs.ErrExist and ErrChanged as with a push, ErrChanged also
	// if img.Ref means another version now; errors.ErrUnsupported if this image
	// cannot be moved there: nothing has happened, and it can still be copied.
	Move(ctx context.Context, img Image, to Ref, replaces string) (Image, error)
}

// A Copier can take over an image of a backend of its own kind: within its service, or as
// the parts that an image has there.
type Copier interface {
	// Copy makes to name what src is, which loses nothing that the service keeps beside the
	// bytes. Nothing is visible under to before all is stored and checked; on an error
	// to names what it named before. If to names the same already, that is success.
	//
	// Errors: those of Pusher.Push; errors.ErrUnsupported if it cannot take over an image from
	// there: nothing has happened, and its bytes can still be pushed.
	Copy(ctx context.Context, src CopySource, to Ref) (Image, error)
}

// A Tagger can give an image one more tag without its bytes travelling.
type Tagger interface {
	// Tag makes tag, of the image that img.Ref names, mean img too, provided that
	// img.Ref still means img.Version. What the tag means is replaced only if that is
	// the version replaces, as in Source. On an error it means what it meant before.
	// With a version in img.Ref exactly that one is tagged.
	//
	// Errors: those of Stat; fs.ErrExist and ErrChanged as with a push, ErrChanged also
	// if img.Ref means another version now; errors.ErrUnsupported if this image
	// cannot have another tag: nothing has happened, and it can still be copied.
	Tag(ctx context.Context, img Image, tag, replaces string) (Image, error)
}

// An Untagger can take a tag from an image and keep the image.
type Untagger interface {
	// Untag takes the tag img.Ref.Tag away, provided that it still means img.Version.
	// The version stays, and can be had by its digest for as long as the service keeps
	// what has no tag; other tags of it stay.
	//
	// Errors: those of Deleter.
	Untag(ctx context.Context, img Image) error
}

// A VersionLister can say which tags and versions one image has.
type VersionLister interface {
	// Versions yields what each tag of the image means that ref.Collection and ref.Name
	// say, and the older versions that the service keeps under them, with theirs in
	// Ref.Version. Of an image without a Version only the name is told, as in an Entry.
	// It costs one request for a page. The order is any.
	//
	// Errors: those of List; fs.ErrNotExist if there is no such image.
	Versions(ctx context.Context, ref Ref) iter.Seq2[Image, error]
}

// A Recorder keeps records of images whose bytes are elsewhere on this machine, or at a
// URL.
type Recorder interface {
	// Record makes ref name the image at location, a URL or the absolute path of a file.
	// What ref means is replaced only if that is a record and the version replaces, as in
	// Source.
	//
	// Errors: those of Stat; fs.ErrInvalid for what is no image; fs.ErrExist and ErrChanged
	// as with a push.
	Record(ctx context.Context, ref Ref, location, replaces string) (Image, error)

	// MoveOut moves the file of img to an absolute path where nothing is, and keeps a
	// record of it: img.Ref names the same image.
	//
	// Errors: those of Stat; ErrChanged; fs.ErrExist.
	MoveOut(ctx context.Context, img Image, to string) (Image, error)

	// Import makes records of its own of what another program's catalogue knows, and
	// yields each step. With dry it changes nothing. What is recorded already stays.
	//
	// Errors: those of the local disk. What was yielded before is done.
	Import(ctx context.Context, dry bool) iter.Seq2[Imported, error]
}

// An Imported is one image of another program's catalogue.
type Imported struct {
	Ref  Ref    `json:"ref"`
	What string `json:"what"` // one of the Import constants
	Path string `json:"path,omitempty"`
	URL  string `json:"url,omitempty"`
}

// What an Import does with an image.
const (
	ImportFile      = "file"      // it is in the store: what is known besides is taken over
	ImportElsewhere = "elsewhere" // its file is outside of the store, and stays there
	ImportURL       = "url"       // only its URL is known
	ImportKnown     = "known"     // there is a record of it, or it was removed here: nothing to do
	ImportMissing   = "missing"   // its file is not there: nothing can be done
)

// A Sharer can give others access to an image.
type Sharer interface {
	// Share returns a link to img, or, where with is not empty, gives that
	// person (an e-mail address) access and returns where they find it.
	Share(ctx context.Context, img Image, with string) (string, error)
}

// A Watcher can tell when listings change.
type Watcher interface {
	// Watch yields a Change as often as one is seen, until ctx ends.
	Watch(ctx context.Context) iter.Seq2[Change, error]
}

// A Change says that a listing is out of date.
type Change struct {
	Collection string // the collection whose direct children changed
	Below      bool   // everything below it may have changed too
}

// A FileOpener holds its images as files of this machine, which are read where
// they lie instead of being copied into the cache.
type FileOpener interface {
	// OpenFile opens the file of img for reading. The caller closes it.
	//
	// Errors: those of Open.
	OpenFile(ctx context.Context, img Image) (*os.File, error)
}

// A Layered backend has container images that are shown as files made of their layers
// (package vsif): Stat gives such an image the digest of one, and Open does not read it.
type Layered interface {
	// Layers returns what the file of img is made of. It may answer out of memory.
	//
	// Errors: those of Open.
	Layers(ctx context.Context, img Image) (Layers, error)

	// Unfit notes that no file can be made of the layers of img, and why: from then on Stat
	// and listings show the image in another form.
	Unfit(img Image, why error)
}

// Layers are what the file of a container image is made of.
type Layers struct {
	Manifest []byte  // as the registry has it; img.Version is its digest
	Config   []byte  // the configuration that it names, as the registry has it
	Blobs    []Image // its layers, the lowest first, as Open reads them: by Digest and Size
	Bounds   []int64 // bytes of the tar of each at most, see vsif.Bound
}

// An ArchiveLister is a Layered that may want its images listed as archives, too. The names
// of images of which no more is known it then lists with the format of an archive.
type ArchiveLister interface {
	ListsArchives() bool
}

// A Knocker knows a request that its service answers without a login, if only to
// refuse it: every answer shows that somebody is there.
type Knocker interface {
	// Knock returns the request's method and address.
	Knock() (method, address string)
}

// A LoginChecker can tell whether its login is taken without asking for anything else.
// Where a backend is none, listing tells.
type LoginChecker interface {
	// CheckLogin returns nil if the service takes the login, or wants none.
	//
	// Errors: ErrUnauthorized; ErrRateLimited, ErrUnavailable, ErrBadAnswer.
	CheckLogin(ctx context.Context) error
}

// An EndpointFinder is a service of many places that keep files, and can look for them.
type EndpointFinder interface {
	// FindEndpoints yields those that a query finds, the account's own first; without a query
	// those that the account is known to use.
	//
	// Errors: those of Searcher.
	FindEndpoints(ctx context.Context, query string) iter.Seq2[Endpoint, error]
}

// An Endpoint is a place that keeps files.
type Endpoint struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Kind     string `json:"kind"`     // as its service calls it
	Readable bool   `json:"readable"` // its files can be opened from here
}

// A WebLogin logs a person in by a web page that shows a code.
type WebLogin interface {
	// StartLogin returns the page, and what makes a secret of the code.
	StartLogin() (page string, exchange func(ctx context.Context, code string) (secret string, err error), err error)
}

// A LoopbackLogin logs a person in by a web page that sends the browser back to this machine
// (RFC 8252, 7.3).
type LoopbackLogin interface {
	// StartLoopbackLogin returns the page, and what makes a secret of the address to which the
	// browser was sent: redirect, "http://127.0.0.1:PORT", with a query.
	StartLoopbackLogin(redirect string) (page string, exchange func(ctx context.Context, sent string) (secret string, err error), err error)
}

// A Limited backend knows how many requests its service says that it allows.
type Limited interface {
	// Limits returns that in words, as the last answers told it; "" if none did.
	Limits() string
}

// An Addressed backend knows where its service is, also if no url is configured.
type Addressed interface {
	// Address returns the address, "https://HOST[:PORT]…", without a request.
	Address() string
}

// AddressOf returns where a backend's service is; "" for one that does not know.
func AddressOf(b Backend) string {
	if a, ok := b.(Addressed); ok {
		return a.Address()
	}
	return ""
}

// A NameChecker can tell without a request whether a name is possible.
type NameChecker interface {
	// CheckName returns nil, or fs.ErrInvalid with the rule that ref breaks.
	CheckName(ref Ref) error
}

// A WriteChecker can tell without a request whether it may store anything: who copies
// gigabytes is told before the first.
type WriteChecker interface {
	// CheckWrite returns nil, or ErrReadOnly or fs.ErrPermission with what is in the way.
	CheckWrite() error
}

// A Speller stores images under names that are coarser than ours (one case only,
// fewer parts), and can tell without a request what it makes of a name.
type Speller interface {
	// Spelling returns the name under which the service would store what is pushed
	// to ref, which CheckName has passed. A push to a ref whose spelling is another
	// one is refused: it would give, or replace, an image that nobody named.
	//
	// Errors: fs.ErrInvalid, with the reason, if such a name can be read but not
	// pushed to.
	Spelling(ref Ref) (Ref, error)
}

// A Source is the bytes of one push.
type Source struct {
	Content  io.ReaderAt // safe for concurrent use; not closed by Push
	Size     int64       // bytes
	Digest   string      // "sha256:…" of all bytes
	Format   string      // as in Image
	Modified time.Time   // of the file that was copied; zero means now
	Mode     fs.FileMode // its permissions; 0 if not known. A store on this machine lets nobody read who could not then

	// Path is a file with exactly these bytes, or "": a backend that stores on
	// this machine may clone it instead of copying. With Give the file is given
	// away and may be hard-linked too; nobody writes to it any more.
	Path string
	Give bool

	// Replaces is the version that the name meant when the copy began; "" if
	// there was none, in which case Push must not replace anything.
	// ReplaceAny replaces whatever is there.
	Replaces string

	// Progress, if not nil, is called with the count of bytes stored so far.
	// It can go back after a retry. Calls do not overlap.
	Progress func(stored int64)

	// Commit, if not nil, is asked in each try, right before the request that gives
	// the bytes their name. After an error that request is not sent. After nil
	// nobody can tell any more whether the push can still be stopped.
	Commit func() error

	// Session, if not nil, outlives the process: an upload that was broken off
	// finds there what it saved, and goes on.
	Session Session
}

// ReplaceAny as Source.Replaces replaces whatever the name means.
const ReplaceAny = "*"

// A Session keeps the state of one upload across restarts.
type Session interface {
	Load() []byte            // nil if nothing was saved
	Save(state []byte) error // durable when it returns; nil forgets
}

// MayCommit asks Commit.
func (s Source) MayCommit() error {
	if s.Commit == nil {
		return nil
	}
	return s.Commit()
}

// ReplaceAllowed is the decision every Push makes before it publishes, where ref means
// current now; CreateAllowed is that where it means nothing. An image that the service
// keeps under another name is not replaced at all: two names that it does not tell apart
// are two to those who gave them.
//
// Errors: those of Pusher.Push; fs.ErrInvalid if current has another name than ref.
func (s Source) ReplaceAllowed(ref Ref, current Image) error {
	if err := SameName(ref, current.Ref); err != nil {
		return err
	}
	switch s.Replaces {
	case ReplaceAny, current.Version:
		return nil
	case "":
		return errExists
	}
	return ErrChanged
}

// CreateAllowed is ReplaceAllowed where no image has the name.
func (s Source) CreateAllowed() error {
	if s.Replaces == "" || s.Replaces == ReplaceAny {
		return nil
	}
	return ErrChanged
}
