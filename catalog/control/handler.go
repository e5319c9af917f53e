// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// Protocol is the number that both sides must agree on.
const Protocol = 1

// MaxRequest is the size in bytes above which a request is refused.
const MaxRequest = 1 << 20

const (
	protocolHeader = "Sregfs-Protocol"
	umaskHeader    = "Sregfs-Umask" // of the caller, in octal; see verbs.WithUmask
	framesType     = "application/x-ndjson"
)

// Options tune a Handler. The zero value has the defaults.
type Options struct {
	Mount   string                   // mount point to report in Status; "" if none
	Names   string                   // how names are spelled there; for PublicHandler
	Details func() map[string]string // more to report in Status; may be nil

	Refusals func() []verbs.Refusal // also to report in Status; may be nil
	// Settle returns when the mount shows the tree as it is now; may
	// be nil. A verb that changes the tree waits for it, for settleTime at most.
	Settle func(ctx context.Context) error
	// Reload takes up what is new in the configuration; see Client.Reload. It may be
	// nil: then there is nothing that outlives the call.
	Reload func(ctx context.Context, reopen string) (Reloaded, error)
	Log    *slog.Logger // gets each verb and its outcome; nil drops them
}

// Handler serves v. The work of a request ends when the client goes
// away. It may be used from many goroutines at once, like v.
func Handler(v *verbs.Verbs, opts Options) http.Handler {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return newMux(opts.Log, allVerbs(v, opts))
}

// settleTime is how long a verb that is done waits for the mount to show it.
const settleTime = 2 * time.Second

// settle waits until the mount shows what a verb did.
func (o Options) settle(ctx context.Context) {
	if o.Settle == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := o.Settle(ctx); err != nil {
		o.Log.Debug("the mount may show for a moment what it showed before", "err", err)
	}
}

// changing is a verb after which the tree is another.
func (o Options) changing(v verb) verb {
	run := v.run
	v.run = func(ctx context.Context, body *json.Decoder, out *frameWriter) error {
		defer o.settle(ctx) // also after an error: part of it may be done
		return run(ctx, body, out)
	}
	return v
}

// A verb is one request that is served.
type verb struct {
	// run decodes the request and does the work, telling out of items and
	// progress; what it returns ends the answer.
	run     func(ctx context.Context, body *json.Decoder, out *frameWriter) error
	request reflect.Type // of the request, for docs/control-api.yaml
}

// verbOf makes a verb of a function with a typed request.
func verbOf[Req any](fn func(ctx context.Context, req Req, out *frameWriter) error) verb {
	return verb{request: reflect.TypeFor[Req](), run: func(ctx context.Context, body *json.Decoder, out *frameWriter) error {
		var req Req
		if err := body.Decode(&req); err != nil {
			if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
				return fmt.Errorf("%w: request of more than %d bytes", fs.ErrInvalid, large.Limit)
			}
			return fmt.Errorf("%w: request: %v", fs.ErrInvalid, err)
		}
		return fn(ctx, req, out)
	}}
}

func newMux(log *slog.Logger, all map[string]verb) http.Handler {
	mux := http.NewServeMux()
	for name, v := range all {
		mux.Handle("POST /v1/"+name, serveVerb(log, name, v))
	}
	mux.Handle("/", serveVerb(log, "unknown", verb{run: func(context.Context, *json.Decoder, *frameWriter) error {
		return fmt.Errorf("%w: no such verb", errors.ErrUnsupported)
	}}))
	// Answered by nothing but the server itself: it says that the process is alive.
	mux.HandleFunc("POST /v1/"+pingVerb, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(protocolHeader, strconv.Itoa(Protocol))
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func serveVerb(log *slog.Logger, name string, v verb) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(protocolHeader, strconv.Itoa(Protocol))
		w.Header().Set("Content-Type", framesType)
		out := newFrameWriter(w)
		// Before any work: a client that gets no head of an answer knows that none was done.
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex() // the request is read after it
		_ = rc.Flush()
		err := checkProtocol("this sreg", r.Header)
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind != "application/json" {
			err = fmt.Errorf("%w: the request is not application/json", ErrProtocol)
		}
		if err == nil {
			body := http.MaxBytesReader(w, r.Body, MaxRequest)
			ctx := r.Context()
			if umask, err := strconv.ParseUint(r.Header.Get(umaskHeader), 8, 9); err == nil {
				ctx = verbs.WithUmask(ctx, fs.FileMode(umask))
			}
			err = backends.Guard(log, func() error { return v.run(ctx, json.NewDecoder(body), out) })
			// A connection that is closed with unread bytes is reset, and the answer is lost.
			_, _ = io.CopyN(io.Discard, r.Body, MaxRequest)
		}
		log.Debug("control", "verb", name, "err", err)
		out.end(err)
	})
}

// checkProtocol compares what the other side, called who, says that it speaks.
func checkProtocol(who string, h http.Header) error {
	switch got := h.Get(protocolHeader); got {
	case strconv.Itoa(Protocol):
		return nil
	case "":
		return fmt.Errorf("%w: what answers is not sregfs", ErrProtocol)
	default:
		return fmt.Errorf("%w: %s speaks version %q, not %d: use sreg and sregfs of one release, and mount again",
			ErrProtocol, who, got, Protocol)
	}
}
