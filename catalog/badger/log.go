// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// A logger gives Badger's messages to slog. What it calls errors are warnings
// to the user, since the index can be lost; what it calls information is for
// those who work on it.
type logger struct{ log *slog.Logger }

func (l logger) Errorf(format string, args ...any)   { l.print(slog.LevelWarn, format, args) }
func (l logger) Warningf(format string, args ...any) { l.print(slog.LevelInfo, format, args) }
func (l logger) Infof(format string, args ...any)    { l.print(slog.LevelDebug, format, args) }

// Debugf is dropped: it has a line for each transaction.
func (l logger) Debugf(string, ...any) {}

func (l logger) print(level slog.Level, format string, args []any) {
	ctx := context.Background()
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "badger: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}
