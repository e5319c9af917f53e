// SPDX-License-Identifier: Apache-2.0

package httpx_test

import (
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/internal/httpx"
)

func TestLinkUntil(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := map[string]time.Duration{
		"https://s3.example/x": httpx.LinkLife,
		"https://s3.example/x?X-Amz-Date=20260102T030405Z&X-Amz-Expires=60":  55 * time.Second,
		"https://s3.example/x?X-Amz-Date=20260102T030305Z&X-Amz-Expires=60":  -5 * time.Second,
		"https://s3.example/x?X-Amz-Date=20260102T030405Z&X-Amz-Expires=900": httpx.LinkLife,
		"https://s3.example/x?X-Amz-Date=today&X-Amz-Expires=60":             httpx.LinkLife,
		"https://s3.example/x?X-Amz-Date=20260102T030405Z&X-Amz-Expires=x":   httpx.LinkLife,
		"::":            httpx.LinkLife,
		"https://cdn/a": httpx.LinkLife,
		"https://cdn/a?Expires=x&se=y&X-Amz-Expires=9":                   httpx.LinkLife,
		"https://cdn/a?X-Amz-Date=20260102T030405Z&X-Amz-Expires=60":     time.Minute - httpx.LinkSpare,
		"https://cdn/a?X-Amz-Date=20260102T030405Z&X-Amz-Expires=3600":   httpx.LinkLife,
		"https://cdn/a?X-Goog-Date=20260102T030305Z&X-Goog-Expires=90":   30*time.Second - httpx.LinkSpare,
		"https://cdn/a?Expires=1767323105&Signature=s":                   time.Minute - httpx.LinkSpare,
		"https://cdn/a?sv=2020&se=2026-01-02T03%3A05%3A05Z&sig=s":        time.Minute - httpx.LinkSpare,
		"https://cdn/a?X-Amz-Date=20260102T020405Z&X-Amz-Expires=60&x=%": -time.Hour + time.Minute - httpx.LinkSpare,
	}
	for link, want := range tests {
		if got := httpx.LinkUntil(link, now).Sub(now); got != want {
			t.Errorf("LinkUntil(%q) is in %v, want %v", link, got, want)
		}
	}
}
