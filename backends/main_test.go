// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

func TestMain(m *testing.M) {
	net.DefaultResolver = ocitest.Resolver(addressOf) // no test asks the Internet
	goleak.VerifyTestMain(m)
}
