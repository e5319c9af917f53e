// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"fmt"
	"io/fs"
	"net/url"
	"strings"
)

// A session is what a collection wants of a login besides its being one: the setting "session".
// It goes into the address of the page at which to log in (https://docs.globus.org/api/auth/sessions).
// It reads as "domain:example.org,identities:UUID+UUID,policies:UUID,mfa", the parts in any order.
type session struct {
	text   string
	params url.Values
}

func (s session) String() string { return s.text }

// sessionParams are the parameters of the page by the words of the setting.
var sessionParams = map[string]string{
	"domain":     "session_required_single_domain",
	"identities": "session_required_identities",
	"policies":   "session_required_policies",
}

// parseSession reads the setting.
//
// Errors: fs.ErrInvalid.
func parseSession(text string) (session, error) {
	s := session{text: text, params: url.Values{}}
	for part := range strings.SplitSeq(text, ",") {
		word, values, valued := strings.Cut(part, ":")
		param, known := sessionParams[word]
		switch {
		case part == "" && text == "":
		case part == "mfa":
			s.params.Set("session_required_mfa", "true")
		case !known || !valued || values == "":
			return s, fmt.Errorf("%w: session: %q (want domain:…, identities:…, policies:… or mfa, with commas between)", fs.ErrInvalid, part)
		default:
			s.params.Set(param, strings.ReplaceAll(values, "+", ","))
		}
	}
	return s, nil
}
