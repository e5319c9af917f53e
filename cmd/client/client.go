// SPDX-License-Identifier: Apache-2.0

// Package client is sreg for Go programs: it reads the user's configuration as sreg does, and
// gives a client of the running mount, or of a catalogue in this process. What the client can
// do is in package catalog/control.
//
// It is below cmd because it reads the environment and the files of the user, which the
// packages outside of cmd do not.
package client

import (
	"cmp"
	"context"
	"log/slog"
	"os"

	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
)

// Options say what is opened. The zero value is what the user has set up.
type Options struct {
	Config  string              // the configuration file; "" finds it as sreg does
	Remotes []string            // more remotes: "NAME=TYPE,key=value…"
	Getenv  func(string) string // the environment; nil is that of this process
	Log     *slog.Logger        // of the work in this process; nil drops it
}

// A Client is a client of the running mount, or without one of a catalogue in this process:
// its methods do the same in both. They may be called from many goroutines at once.
type Client struct {
	*control.Client
	Mount string // where the running mount is; "" without one

	session *engine.Session
}

// Open reads the configuration and connects. Nothing is asked of a registry.
//
// A client without a mount takes the state directory when it first needs it, and has it until
// Close: another sreg waits so long, and a mount does not start. Close it soon.
//
// Errors: those of the configuration; fs.ErrPermission if the mount is another user's. If a
// mount starts after Open and before the first call, that fails with "held by": open again.
func Open(ctx context.Context, o Options) (*Client, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	var settings config.Settings
	flags := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	settings.Flags(flags)
	opts, err := engine.Configure(&settings, flags, engine.Source{
		Getenv: o.Getenv, Config: o.Config, Remotes: o.Remotes, Log: o.Log,
		Notice: func(text string) { o.Log.Info(text) },
	})
	if err != nil {
		return nil, err
	}
	s, err := engine.Connect(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &Client{Client: s.Client, Mount: s.Mount, session: s}, nil
}

// Close ends the connection, or closes the catalogue, which waits for what it publishes until
// ctx ends.
func (c *Client) Close(ctx context.Context) error { return c.session.Close(ctx) }
