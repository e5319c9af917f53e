// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/sregfs/sregfs/backends"
)

// The servers of a collection say what has failed in a text of lines, which the HTTPS server
// sends as it is, with the status 404 whatever it was, and the Transfer API has in its message:
//
//	550-GlobusError: v=1 c=PATH_NOT_FOUND
//	550-GridFTP-Errno: 2
//	550-GridFTP-JSON-Result: {"code": …, "authorization_parameters": …}
const (
	gridCode   = "GlobusError: v=1 c="
	gridResult = "GridFTP-JSON-Result: "
)

// gridCodes are the codes in it (globus_i_gfs_error_system in GridFTP's server). Any other is of
// one of several servers that fails now.
var gridCodes = map[string]error{
	"PATH_NOT_FOUND":    errNoPath,
	"NOT_A_DIRECTORY":   errNoPath,
	"IS_A_DIRECTORY":    errNoPath,
	"PATH_EXISTS":       fs.ErrExist,
	"PERMISSION_DENIED": fs.ErrPermission,
	"LOGIN_DENIED":      fs.ErrPermission,
	"NO_SPACE_LEFT":     syscall.EDQUOT, // as for HTTP 507: it is not this machine's
	"QUOTA_EXCEEDED":    syscall.EDQUOT,
}

// gridError returns what such a text means; nil if it is none.
func gridError(text string) error {
	_, rest, ok := strings.Cut(text, gridCode)
	if !ok {
		return nil
	}
	n := strings.IndexFunc(rest, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '_' })
	if n < 0 {
		n = len(rest)
	}
	code := rest[:n]
	sentinel, known := gridCodes[code]
	if !known {
		sentinel = backends.ErrUnavailable
	}
	if sentinel == errNoPath { //nolint:errorlint // it is that of the table
		return errNoPath
	}
	return fmt.Errorf("%w: %.40s", sentinel, code)
}

// gridSession returns what such a text wants of a login; nil if that is nothing.
func gridSession(text string) *sessions {
	_, rest, ok := strings.Cut(text, gridResult)
	var result struct {
		Session *sessions `json:"authorization_parameters"`
	}
	if !ok || json.NewDecoder(strings.NewReader(rest)).Decode(&result) != nil {
		return nil
	}
	return result.Session
}
