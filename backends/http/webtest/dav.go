// SPDX-License-Identifier: Apache-2.0

package webtest

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"
)

// ApacheDAV runs Debian's apache2 with mod_dav until the test ends, as Apache does otherwise.
// With NoLocks it refuses LOCK. Where it is not installed the test is skipped, or fails if
// SREGFS_NOSKIP=1.
func ApacheDAV(t testing.TB, opts Options) *Server {
	t.Helper()
	s := newServer(t, opts)
	if opts.User != "" {
		s.Login(opts.User, opts.Password)
	}
	s.run(program(t, "apache2"), func(host, port string) []string {
		return []string{"-X", "-f", s.config("apache.conf", s.apacheDAV(net.JoinHostPort(host, port)))}
	})
	return s
}

func (s *Server) apacheDAV(address string) string {
	const modules = "/usr/lib/apache2/modules/mod_"
	locks, login, log := "", "Require all granted", ""
	if s.opts.NoLocks {
		locks = "<Limit LOCK UNLOCK>\nRequire all denied\n</Limit>"
	}
	if s.opts.User != "" {
		login = fmt.Sprintf("AuthType Basic\nAuthName images\nAuthUserFile %q\nRequire valid-user", s.passwords())
	}
	if s.opts.Log {
		log = fmt.Sprintf("LoadModule log_config_module %slog_config.so\nLogFormat \"%%m %%U\" short\nCustomLog %q short", modules, s.Log)
	}
	return fmt.Sprintf(`ServerRoot %[1]q
ServerName localhost
PidFile "%[1]s/pid"
DefaultRuntimeDir %[1]q
Mutex "file:%[1]s"
ErrorLog /dev/stderr
Listen %[2]s
LoadModule mpm_event_module %[3]smpm_event.so
LoadModule authz_core_module %[3]sauthz_core.so
LoadModule authz_user_module %[3]sauthz_user.so
LoadModule auth_basic_module %[3]sauth_basic.so
LoadModule authn_core_module %[3]sauthn_core.so
LoadModule authn_file_module %[3]sauthn_file.so
LoadModule dav_module %[3]sdav.so
LoadModule dav_fs_module %[3]sdav_fs.so
DavLockDB "%[1]s/locks"
%[6]s
DocumentRoot %[5]q
<Directory %[5]q>
	Dav On
	%[7]s
	%[4]s
</Directory>
`, s.dir, address, modules, locks, s.Root, log, login)
}

// RcloneDAV runs Debian's "rclone serve webdav" until the test ends, which is Go's WebDAV
// server (golang.org/x/net/webdav). Where rclone is not installed the test is skipped, or fails
// if SREGFS_NOSKIP=1.
func RcloneDAV(t testing.TB, opts Options) *Server {
	t.Helper()
	s := newServer(t, opts)
	s.run(program(t, "rclone"), func(host, port string) []string {
		args := []string{"serve", "webdav", "--config", s.config("rclone.conf", ""), "--cache-dir", filepath.Join(s.dir, "cache"), "--dir-cache-time", "0s", "--poll-interval", "0", "--addr", net.JoinHostPort(host, port)}
		if opts.User != "" {
			args = append(args, "--user", opts.User, "--pass", opts.Password)
		}
		return append(args, s.Root)
	})
	return s
}
