// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends"
)

// An apiError is a refusal by the Transfer API or an HTTPS server. Code is dotted, the kind of
// error last: "ExternalError.DirListingFailed.NotDirectory".
type apiError struct {
	Code     string `json:"code"`
	Message  string `json:"message"`
	Resource string `json:"resource"` // "/v0.10/operation/endpoint/UUID/ls"

	RequiredScopes []string  `json:"required_scopes"`          // of ConsentRequired
	Session        *sessions `json:"authorization_parameters"` // of a login that is not fresh or not good enough
}

// sessions is what Globus wants of a login: https://docs.globus.org/api/auth/sessions.
type sessions struct {
	Message    string   `json:"session_message"`
	Identities []string `json:"session_required_identities"`
	Domains    listed   `json:"session_required_single_domain"`
	Policies   listed   `json:"session_required_policies"`
	MFA        bool     `json:"session_required_mfa"`
}

// A listed value is a list, or a text with commas.
type listed []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *listed) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*l = nil
		if one != "" {
			*l = strings.Split(one, ",")
		}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(l))
}

// errNoPath is that a collection has no such file or folder.
var errNoPath = backends.NotFound("no such path")

// A refusedKind is what the last part of a code means. advice, if there is some, is told in
// place of Globus's own text. What is away has to be brought back by somebody: asking again at
// once is in vain.
type refusedKind struct {
	sentinel error
	advice   string
	away     bool
}

// kinds are the codes that are told apart: https://docs.globus.org/api/transfer/file_operations,
// and those that its SDK and others are known to meet.
var kinds = map[string]refusedKind{
	"NotFound":         {errNoPath, "", false},
	"NotDirectory":     {errNoPath, "", false},
	"NotADirectory":    {errNoPath, "", false},
	"EndpointNotFound": {fs.ErrNotExist, "Globus has no such collection: \"sreg search --endpoint\" finds those that there are", false},
	"EndpointDeleted":  {fs.ErrNotExist, "the collection was deleted", false},

	"Exists":        {fs.ErrExist, "", false},
	"AlreadyExists": {fs.ErrExist, "", false},

	"PermissionDenied":         {fs.ErrPermission, "", false},
	"EndpointPermissionDenied": {fs.ErrPermission, "", false},
	"LoginFailed":              {fs.ErrPermission, "", false},
	"AuthPolicyFailed":         {fs.ErrPermission, "", false},

	"ActivationRequired":   {fs.ErrPermission, activate, false},
	"AutoActivationFailed": {fs.ErrPermission, activate, false},

	"InvalidPath": {fs.ErrInvalid, "", false},

	"NotSupported":   {errors.ErrUnsupported, "", false},
	"NotImplemented": {errors.ErrUnsupported, "", false},

	"GCDisconnected":          {backends.ErrUnavailable, disconnected, true},
	"GCDisconnectedException": {backends.ErrUnavailable, disconnected, true},
	"GCPaused":                {backends.ErrUnavailable, paused, true},
	"GCPausedException":       {backends.ErrUnavailable, paused, true},
	"OperationPaused":         {backends.ErrUnavailable, "the administrator of the collection has paused this: the page of the collection at https://app.globus.org says why", true},

	"EndpointError":      {backends.ErrUnavailable, "", false},
	"Timeout":            {backends.ErrUnavailable, "", false},
	"ConnectFailed":      {backends.ErrUnavailable, "", false},
	"ServiceUnavailable": {backends.ErrUnavailable, "", false},
}

const (
	activate     = "the endpoint wants to be activated, at https://app.globus.org, as those before Globus Connect Server 5 did"
	disconnected = "the collection is not connected to Globus: start Globus Connect Personal on its computer"
	paused       = "the collection is paused: let Globus Connect Personal on its computer go on"
)

// translate says what a refusal by a server means, and what helps; status is what its HTTP
// status means.
func (c *client) translate(server string, e *apiError, status error) error {
	kind := e.Code[strings.LastIndexByte(e.Code, '.')+1:]
	k, known := kinds[kind]
	if e.Session == nil {
		e.Session = gridSession(e.Message)
	}
	switch {
	case kind == "ConsentRequired": // goes first: it can have authorization_parameters, too
		return c.consentError(e)
	case e.Session != nil:
		return c.sessionError(e)
	case errors.Is(status, backends.ErrRateLimited):
		return status
	case k.advice != "":
		err := backends.Saying(k.sentinel, "%s%s", k.advice, named(e.Resource))
		if k.away {
			return backoff.Permanent(err)
		}
		return err
	case known && (!errors.Is(k.sentinel, backends.ErrUnavailable) || !errors.Is(status, backends.ErrUnavailable)):
		return backends.Saying(k.sentinel, "%s", e.text())
	}
	if err := gridError(e.Message); err != nil {
		return err
	}
	if e.Code != "" {
		status = fmt.Errorf("%w (%s)", status, e.text()) // which knows for how long, if anything does
	}
	return c.advise(server, status)
}

// text is the code, and what it is about.
func (e *apiError) text() string {
	line, _, _ := strings.Cut(e.Message, "\n")
	// The first line of a failed command says only that it failed.
	if _, reason, ok := strings.Cut(e.Message, "\nMessage: "); ok {
		line, _, _ = strings.Cut(reason, "\n")
	}
	return fmt.Sprintf("%.100s: %.200q", e.Code, backends.Redact(strings.TrimSpace(line)))
}

// named is the collection that a resource is of, for the end of a message.
func named(resource string) string {
	for part := range strings.SplitSeq(resource, "/") {
		if isID(strings.ToLower(part)) {
			return " (" + part + ")"
		}
	}
	return ""
}

// loginLine is what to type for another login.
func (c *client) loginLine() string {
	if c.tokens.user != "" {
		return fmt.Sprintf("run \"sreg login %s --user %s --token-stdin\" with the secret of that app", c.remote, backends.Printable(c.tokens.user))
	}
	return fmt.Sprintf("run \"sreg login %s\"", c.remote)
}

// setLine is what to type for another setting, and then for another login. An app gets what it
// needs without one.
func (c *client) setLine(key, value string) string {
	line := fmt.Sprintf("run \"sreg remote set %s %s=%s\"", c.remote, key, backends.Printable(value))
	if c.tokens.user != "" {
		return line
	}
	return line + fmt.Sprintf(", then \"sreg login %s\"", c.remote)
}

// advise adds to a refusal of a login what helps.
func (c *client) advise(server string, err error) error {
	if !errors.Is(err, backends.ErrUnauthorized) {
		return err
	}
	if server != transferServer {
		return backends.Saying(backends.ErrUnauthorized, "%v; %s", err, c.dataAdvice(server))
	}
	return backends.Saying(backends.ErrUnauthorized, "%v: %s", err, c.loginLine())
}

// dataAdvice says how to get a login for the data of a collection.
func (c *client) dataAdvice(collection string) string {
	if !slices.Contains(c.endpoints, collection) && c.tokens.user == "" {
		return "the login is not for the data of that collection: " + c.setLine("endpoint", strings.Join(append(slices.Clone(c.endpoints), collection), ","))
	}
	return "the data of a collection needs a login of its own: " + c.loginLine()
}

// redirected is a refusal by redirect: to a page at which to log in, most often.
func (c *client) redirected(server string, resp *http.Response) error {
	resp.Body.Close()
	to, err := resp.Location()
	if err == nil && strings.HasSuffix(to.Path, authorizePath) {
		return backends.Saying(backends.ErrUnauthorized, "the collection wants a login; %s", c.dataAdvice(server))
	}
	return fmt.Errorf("%w: HTTP %d", backends.ErrBadAnswer, resp.StatusCode)
}

// consentError says what to do about a consent that was not given.
func (c *client) consentError(e *apiError) error {
	wanted := slices.Clone(c.dataAccess)
	for _, scope := range e.RequiredScopes {
		if id := accessScope(scope); id != "" && !slices.Contains(wanted, id) {
			wanted = append(wanted, id)
		}
	}
	advice := c.loginLine() + " and allow it"
	if len(wanted) > len(c.dataAccess) {
		advice = c.setLine("data_access", strings.Join(wanted, ","))
	}
	return backends.Saying(backends.ErrUnauthorized, "Globus wants consent to access the data (%.300s): %s",
		backends.Redact(strings.Join(e.RequiredScopes, " ")), advice)
}

// accessScope returns the collection in which a scope, or one that it depends on, allows access
// to data; "" if none does.
func accessScope(scope string) string {
	before, _, ok := strings.Cut(scope, "/data_access")
	if id := before[strings.LastIndexByte(before, '/')+1:]; ok && isID(id) {
		return id
	}
	return ""
}

// sessionError says what to do about a login that is not fresh or not good enough.
func (c *client) sessionError(e *apiError) error {
	s := e.Session
	var wants, settings []string
	add := func(want, setting string, values []string) {
		if len(values) > 0 {
			wants = append(wants, want+" "+strings.Join(values, " or "))
			settings = append(settings, setting+":"+strings.Join(values, "+"))
		}
	}
	add("with an identity of", "domain", s.Domains)
	add("as", "identities", s.Identities)
	add("as the policy wants it", "policies", s.Policies)
	if s.MFA {
		wants, settings = append(wants, "with a second factor"), append(settings, "mfa")
	}
	advice := c.loginLine()
	if setting := strings.Join(settings, ","); setting != c.session.String() && c.tokens.user == "" {
		advice = c.setLine("session", setting)
	}
	text := "Globus wants another login, for the last is too old"
	if len(wants) > 0 {
		text = "Globus wants another login, " + strings.Join(wants, ", ")
	}
	if s.Message != "" {
		text += fmt.Sprintf(" (%.200q)", backends.Redact(s.Message))
	}
	return backends.Saying(backends.ErrUnauthorized, "%.500s: %s", text, advice)
}
