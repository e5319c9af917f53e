// SPDX-License-Identifier: Apache-2.0

package mem_test

import (
	"fmt"
	"testing"

	"github.com/sregfs/sregfs/catalog/catalogtest"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/mem"
)

func TestStore(t *testing.T) {
	t.Parallel()
	catalogtest.Run(t, func(*testing.T) index.Store { return mem.New() })
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := mem.New()
			for i := range n {
				if err := s.Apply(index.KV{Key: fmt.Appendf(nil, "%06d", i), Value: []byte("v")}); err != nil {
					b.Fatal(err)
				}
			}
			for i := 0; b.Loop(); i++ {
				if err := s.Apply(index.KV{Key: fmt.Appendf(nil, "%06d", i%n), Value: []byte("w")}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
