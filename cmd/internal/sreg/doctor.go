// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/doctor"
	"github.com/sregfs/sregfs/cmd/internal/engine"
)

func (a *app) doctorCmd() *cobra.Command {
	var bundle string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps sregfs from working here",
		Long: `Look at the machine (FUSE, Apptainer, disks, quotas, updatedb), the configuration,
the logins and the registries, each of which is asked once, without a login. Nothing is
changed. Each line says ok, warn (it works, but not as well as it could) or fail, and
what to do. The exit code is 1 if something fails.

With --bundle FILE all that, the settings, the status and the end of the log are written
to a new file for a bug report, without secrets: a tar archive with gzip.

With -o json: an array of {check, result, detail, remedy}.`,
		Args: needArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if bundle != "" {
				return a.bundle(cmd.Context(), bundle)
			}
			found := a.diagnose(cmd.Context())
			if err := a.printFindings(found); err != nil {
				return err
			}
			failed := 0
			for _, f := range found {
				if f.Result == doctor.Fail {
					failed++
				}
			}
			if failed > 0 {
				return fmt.Errorf("doctor: %s", plural(failed, "check")+" failed")
			}
			return cmd.Context().Err()
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "write a new `FILE` for a bug report")
	return cmd
}

func (a *app) printFindings(found []doctor.Finding) error {
	return printAll(a, allOf(found),
		column[doctor.Finding]{"CHECK", func(f doctor.Finding) string { return f.Check }, nil},
		column[doctor.Finding]{"RESULT", func(f doctor.Finding) string { return string(f.Result) }, nil},
		column[doctor.Finding]{"DETAIL", func(f doctor.Finding) string {
			if f.Remedy == "" {
				return f.Detail
			}
			return f.Detail + ": " + f.Remedy
		}, nil})
}

// diagnose runs all checks.
func (a *app) diagnose(ctx context.Context) []doctor.Finding {
	o, err := a.options()
	m := doctor.New(o.Root)
	m.Mount, m.State = runningMount(o), o.State
	m.AllowOther, m.MinFree = a.settings.AllowOther, int64(a.settings.MinFree)
	m.Cache, m.Storage = a.settings.CacheDir, a.settings.Storage
	found := append(m.Check(ctx), a.checkConfig(o, err)...)
	found = append(found, checkLogins(o)...)
	if err != nil {
		return found // the remotes are not known
	}
	return append(found, checkRegistries(ctx, o)...)
}

func (a *app) checkConfig(o engine.Options, err error) (all []doctor.Finding) {
	const check = "configuration"
	if err != nil {
		all = append(all, doctor.Finding{Check: check, Result: doctor.Fail, Detail: err.Error(), Remedy: "mend the line, or chmod the file, that it names"})
	}
	for _, warning := range append(a.settings.Warnings, o.StateNotes...) {
		all = append(all, doctor.Finding{Check: check, Result: doctor.Warn, Detail: warning, Remedy: "see docs/configuration.md"})
	}
	if len(all) == 0 {
		all = append(all, doctor.Finding{Check: check, Result: doctor.OK, Detail: plural(len(a.settings.Remotes), "remote")})
	}
	return all
}

// checkLogins looks at the files of logins: who can read them, and whether they are for the
// remotes that have their names.
func checkLogins(o engine.Options) []doctor.Finding {
	const check = "logins"
	info, err := os.Stat(o.Logins)
	if errors.Is(err, fs.ErrNotExist) {
		return []doctor.Finding{{Check: check, Result: doctor.OK, Detail: "none is stored"}}
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s is open to others (mode %#o)", o.Logins, info.Mode().Perm())
	}
	if err != nil {
		return []doctor.Finding{{Check: check, Result: doctor.Fail, Detail: err.Error(), Remedy: "chmod 700 " + o.Logins}}
	}
	var all []doctor.Finding
	for _, r := range o.Settings.Remotes {
		if _, err := o.ReadLogin(r); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, doctor.Finding{Check: check, Result: doctor.Fail, Detail: problem(err), Remedy: "sreg login " + r.Name + " stores it again"})
		}
	}
	if len(all) == 0 {
		all = append(all, doctor.Finding{Check: check, Result: doctor.OK, Detail: o.Logins})
	}
	return all
}

// checkRegistries asks all registries at once.
func checkRegistries(ctx context.Context, o engine.Options) []doctor.Finding {
	all := make([]doctor.Finding, len(o.Settings.Remotes))
	skews := make([]time.Duration, len(all))
	var wg sync.WaitGroup
	for i, r := range o.Settings.Remotes {
		wg.Go(func() { all[i], skews[i] = checkRegistry(ctx, o, r) })
	}
	wg.Wait()
	return append(all, checkClock(o.Settings.Remotes, skews))
}

func checkRegistry(ctx context.Context, o engine.Options, r config.Remote) (doctor.Finding, time.Duration) {
	f := doctor.Finding{Check: "remote " + r.Name, Result: doctor.OK}
	p, err := newProbe(ctx, o, r)
	if err != nil {
		f.Result, f.Detail, f.Remedy = doctor.Fail, backends.Redact(problem(err)), remedy(r, "open", err)
		return f, 0
	}
	defer p.close()
	if f.Detail, err = p.reach(ctx); err == nil {
		f.Detail = backends.Redact(f.Detail)
		return f, p.skew
	}
	f.Result, f.Detail, f.Remedy = doctor.Fail, backends.Redact(problem(err)), networkRemedy(p.cause, remedy(r, "reach", err))
	if r.Guessed {
		f.Result = doctor.Warn
	}
	return f, p.skew
}

// problem is an error's text without the kind of it, which the remedy is about.
func problem(err error) string {
	text := err.Error()
	for _, kind := range []error{backends.ErrUnauthorized, backends.ErrUnavailable} {
		text = strings.TrimPrefix(text, kind.Error()+": ")
	}
	return text
}

// networkRemedy says what to do about what went wrong on the way to a service.
func networkRemedy(err error, otherwise string) string {
	unknown, invalid, host := x509.UnknownAuthorityError{}, x509.CertificateInvalidError{}, x509.HostnameError{}
	dns, op := (*net.DNSError)(nil), (*net.OpError)(nil)
	record := tls.RecordHeaderError{}
	switch {
	case err == nil:
	case errors.As(err, &unknown):
		return "its certificate is of an authority that this machine does not know: set ca_file to the authority's"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate is out of date, or this machine's clock is wrong"
	case errors.As(err, &host):
		return "its certificate is for another name: look at url"
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"): // net/http has no type for it
		return "it does not speak TLS: look at url, and at the proxy (HTTPS_PROXY)"
	case errors.As(err, &op) && op.Op == "proxyconnect", strings.Contains(err.Error(), "proxyconnect"):
		return "the proxy cannot be used: look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
	case errors.As(err, &dns):
		return "the name is not found: look at url, /etc/resolv.conf, and whether a proxy is needed (HTTPS_PROXY)"
	}
	return otherwise
}

// The clocks of registries tell the time in seconds; a login's signature and a certificate
// are refused for some minutes.
const (
	skewWarn = 30 * time.Second
	skewFail = 4 * time.Minute
)

// checkClock compares this machine's clock with those of the services: the one that differs
// least is believed, as a service may be wrong, too.
func checkClock(remotes []config.Remote, skews []time.Duration) doctor.Finding {
	f := doctor.Finding{Check: "clock", Result: doctor.OK, Detail: "no registry told the time"}
	least, of := time.Duration(0), ""
	for i, skew := range skews {
		if skew != 0 && (of == "" || skew.Abs() < least.Abs()) {
			least, of = skew, remotes[i].Name
		}
	}
	if of == "" {
		return f
	}
	f.Detail = fmt.Sprintf("within %s of that of %s", max(time.Second, least.Abs().Round(time.Second)), of)
	if least.Abs() > skewWarn {
		f.Result, f.Remedy = doctor.Warn, "set the clock, or have chrony or systemd-timesyncd do it"
		f.Detail = fmt.Sprintf("differs from that of %s by %s", of, least.Round(time.Second))
	}
	if least.Abs() > skewFail {
		f.Result = doctor.Fail
	}
	return f
}
