// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

func (a *app) remoteTestCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "test NAME [IMAGE]",
		Short: "Try what works with a registry, and what does not",
		Long: `Ask a registry, step by step: can it be reached, does it take the login, list, and
give the first bytes of an image. IMAGE, as COLLECTION/IMAGE:TAG, is the one to
read; without it the first that is found. Nothing is written: whether a push is
allowed is told from the configuration. The exit code is that of the first step
that fails. Where the service says how much it still allows, that is shown.

With -o json: an array of {step, result, detail, remedy}; result is ok, no (the
service or the configuration has it so), failed, or skipped.`,
		Args: needArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			image := ""
			if len(args) == 2 {
				image = args[1]
			}
			return a.testRemote(cmd.Context(), args[0], image)
		},
	}
}

// The results of a step.
const (
	resultOK      = "ok"
	resultNo      = "no"
	resultFailed  = "failed"
	resultSkipped = "skipped"
)

// A step is the result of one question to a remote.
type step struct {
	Step   string `json:"step"`
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	err    error
}

func (a *app) testRemote(ctx context.Context, name, image string) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	r, err := remoteNamed(o, name)
	if err != nil {
		return a.onlyInMount(ctx, o, name, err)
	}
	var ref backends.Ref
	if image != "" {
		if ref, err = backends.ParseRef(image); err != nil {
			return err
		}
		if ref.Tag == "" && ref.Version == "" {
			ref.Tag = backends.DefaultTag
		}
	}
	p, err := newProbe(ctx, o, r)
	if err != nil {
		return fmt.Errorf("remote test %s: %w", name, err)
	}
	defer p.close()
	steps := p.steps(ctx, o, ref)
	if err := a.printSteps(steps); err != nil {
		return err
	}
	for _, s := range steps {
		if s.err != nil {
			// The table above has the reason and the remedy.
			return exit.WithCode(exit.Code(s.err), fmt.Errorf("remote test %s: %s failed", name, s.Step))
		}
	}
	return ctx.Err()
}

// onlyInMount returns a better error than cause if the configuration lacks the remote but
// the running mount has it, from its command line. Its login and settings are only in that
// process, so the remote cannot be tested from here; the error says how to pass it.
func (a *app) onlyInMount(ctx context.Context, o engine.Options, name string, cause error) error {
	mount := runningMount(o)
	if mount == "" {
		return cause
	}
	var found verbs.RemoteStatus
	err := a.with(ctx, func(c *control.Client) error {
		st, err := c.Status(ctx)
		for _, r := range st.Remotes {
			if r.Name == name {
				found = r
			}
		}
		return err
	})
	if err != nil || found.Name == "" {
		return cause
	}
	spec := found.Name + "=" + found.Type
	if found.URL != "" {
		spec += ",url=" + found.URL
	}
	return backends.NotFound("the configuration has no remote %q: the mount at %s was given it on its command line. Give the same to this one: sreg --remote %s remote test %s",
		name, mount, spec, name)
}

func (a *app) printSteps(steps []step) error {
	return printAll(a, allOf(steps),
		column[step]{"STEP", func(s step) string { return s.Step }, nil},
		column[step]{"RESULT", func(s step) string { return s.Result }, nil},
		column[step]{"DETAIL", step.advice, nil})
}

// advice is the detail of a step, and what to do.
func (s step) advice() string {
	if s.Remedy == "" {
		return s.Detail
	}
	return s.Detail + ": " + s.Remedy
}

// steps runs all steps. After a failure, those that depend on the failed one are skipped.
func (p *probe) steps(ctx context.Context, o engine.Options, ref backends.Ref) []step {
	address, err := p.reach(ctx)
	reach := p.outcome("reach", address, err)
	if err != nil {
		return []step{reach, skipped("login"), skipped("list"), skipped("read"), p.push()}
	}
	err = p.checkLogin(ctx, o)
	login := p.outcome("login", loginSource(o, p.remote), err)
	if errors.Is(err, errLoginUnchecked) {
		login, err = step{Step: "login", Result: resultNo, Detail: exit.Text(err)}, nil
	}
	if err != nil {
		return []step{reach, login, skipped("list"), skipped("read"), p.push()}
	}
	list, entries := p.listStep(ctx)
	steps := []step{reach, login, list, p.readStep(ctx, ref, entries)}
	if limits := p.client.Limits(); limits != "" { // from headers of the answers above; it costs no request
		steps = append(steps, step{Step: "limit", Result: resultOK, Detail: limits})
	}
	return append(steps, p.push())
}

func skipped(name string) step { return step{Step: name, Result: resultSkipped} }

// outcome makes a step: ok with detail, or failed with err and its remedy.
func (p *probe) outcome(name, detail string, err error) step {
	if err == nil {
		return step{Step: name, Result: resultOK, Detail: detail}
	}
	return step{Step: name, Result: resultFailed, Detail: backends.Redact(exit.Text(err)), Remedy: remedy(p.remote, name, err), err: err}
}

// remedy says what to do about an error; "" if its text already does. Its order matters:
// special causes stand before general ones, as a wrong login is a missing permission too.
func remedy(r config.Remote, name string, err error) string {
	switch {
	case errors.Is(err, backends.ErrUnauthorized) && name == "reach": // a client certificate, which the text names
	case errors.Is(err, backends.ErrUnauthorized) && tokenSource(r) != "":
		return "renew what is in " + tokenSource(r)
	case errors.Is(err, backends.ErrUnauthorized) && typeOf(r).LoginAdvice != "":
		return typeOf(r).LoginAdvice
	case errors.Is(err, backends.ErrUnauthorized):
		return "run \"sreg login " + r.Name + "\""
	case errors.Is(err, fs.ErrPermission) && typeOf(r).Local:
		return "look at the permissions of the directory"
	case errors.Is(err, fs.ErrPermission):
		return "the account lacks the permission: ask the operator of the registry"
	case errors.Is(err, backends.ErrRateLimited):
		return "wait, or log in: many registries allow more then"
	case name == "reach" && errors.Is(err, fs.ErrNotExist):
		return "look at path; is the disk mounted?"
	case name == "reach" && typeOf(r).Local:
		return "set path to a directory"
	case name == "reach":
		return "look at url, the network, the proxy (HTTPS_PROXY), and ca_file for a certificate of your own"
	}
	return ""
}

// loginSource says where the login comes from.
func loginSource(o engine.Options, r config.Remote) string {
	if typeOf(r).Login == backends.LoginNone {
		return "none is needed"
	}
	if source := tokenSource(r); source != "" {
		return "from " + source
	}
	if l, err := o.ReadLogin(r); err == nil {
		if l.User != "" {
			return "stored by \"sreg login\", user " + l.User
		}
		return "stored by \"sreg login\""
	}
	return "none is configured; one of docker, podman or apptainer if there is any"
}

func (p *probe) listStep(ctx context.Context) (step, []backends.Entry) {
	entries, err := p.list(ctx, "")
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		s := step{Step: "list", Result: resultNo, Detail: "the registry cannot list all it has; what is named can be opened"}
		if p.typ.Namespaces {
			s.Remedy = "namespaces = [\"…\"] in its table, or a login, has some listed"
		}
		return s, nil
	case errors.Is(err, fs.ErrNotExist):
		return step{Step: "list", Result: resultOK, Detail: "it is empty"}, nil
	case err != nil && p.typ.OCI && errors.Is(err, fs.ErrPermission):
		// Docker Hub, GHCR and others show their catalogue to nobody.
		return step{Step: "list", Result: resultNo, Detail: "the registry does not show its catalogue; what is named can be opened"}, nil
	}
	more := ""
	if len(entries) == maxListed {
		more = " or more"
	}
	return p.outcome("list", fmt.Sprintf("%d%s names at the top", len(entries), more), err), entries
}

func (p *probe) readStep(ctx context.Context, ref backends.Ref, entries []backends.Entry) step {
	if ref == (backends.Ref{}) {
		var ok bool
		if ref, ok = p.someImage(ctx, entries); !ok {
			return step{Step: "read", Result: resultSkipped, Detail: "no image was found",
				Remedy: "name one: sreg remote test " + p.remote.Name + " COLLECTION/IMAGE:TAG"}
		}
	}
	return p.outcome("read", ref.String(), p.read(ctx, ref))
}

// push reports what the configuration and the type allow. Whether the registry allows a
// push only a push would show, and this command writes nothing.
func (p *probe) push() step {
	s := step{Step: "push", Result: resultNo}
	unwritable := p.client.CheckWrite()
	switch {
	case p.readOnly:
		s.Detail = "read_only is set in the configuration"
	case !p.client.Caps().Has(backends.CanPush):
		s.Detail = fmt.Sprintf("a remote of type %q takes no images", p.remote.Type)
	case p.movedTo != "":
		s.err = fmt.Errorf("%w: the address redirects to %s, and pushes follow no redirect", backends.ErrUnavailable, p.movedTo)
		s.Result, s.Detail, s.Remedy = resultFailed, s.err.Error(), "set url = \""+p.movedTo+"\" if that is right"
	case unwritable != nil:
		s.Detail = exit.Text(unwritable)
	default:
		s.Result, s.Detail = resultOK, "the configuration allows it (not tried)"
	}
	return s
}
