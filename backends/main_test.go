// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"net"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: nameServer} // no test asks the Internet
	goleak.VerifyTestMain(m)
}
