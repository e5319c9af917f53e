// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends"
)

// How often a task is looked at: soon, since one file is quickly deleted, and then less and less.
const (
	firstPoll = 250 * time.Millisecond
	lastPoll  = 5 * time.Second
	// taskTime is how long a task that deletes one file is waited for.
	taskTime = 10 * time.Minute
)

// submissionID returns an id by which a task can be submitted once, however often it is sent.
func (c *client) submissionID(ctx context.Context) (string, error) {
	var answer struct {
		Value string `json:"value"`
	}
	err := c.call(ctx, http.MethodGet, "/submission_id", nil, nil, &answer)
	if err == nil && answer.Value == "" {
		err = fmt.Errorf("%w: no submission id", backends.ErrBadAnswer)
	}
	return answer.Value, err
}

// submitDelete has one file deleted, and returns the task.
func (c *client) submitDelete(ctx context.Context, p place) (task string, err error) {
	id, err := c.submissionID(ctx)
	if err != nil {
		return "", err
	}
	body := map[string]any{
		"DATA_TYPE": "delete", "submission_id": id, "endpoint": p.endpoint, "label": "sregfs",
		"recursive": false, "ignore_missing": true, "interpret_globs": false,
		"notify_on_succeeded": false, "notify_on_failed": false, "notify_on_inactive": false, // nobody wants e-mails for that
		"DATA": []any{map[string]string{"DATA_TYPE": "delete_item", "path": p.path}},
	}
	var answer struct {
		document

		TaskID string `json:"task_id"`
	}
	if err := c.call(ctx, http.MethodPost, "/delete", nil, body, &answer); err != nil {
		return "", err
	}
	if err := answer.is("delete_result"); err != nil {
		return "", err
	}
	if answer.TaskID == "" {
		return "", fmt.Errorf("%w: no task", backends.ErrBadAnswer)
	}
	return answer.TaskID, nil
}

// A taskDocument is what the Transfer API tells of a task.
type taskDocument struct {
	document

	Status     string  `json:"status"`      // "ACTIVE", "INACTIVE", "SUCCEEDED", "FAILED"
	NiceStatus *string `json:"nice_status"` // why it is not done yet
	Paused     bool    `json:"is_paused"`
	FatalError *fatal  `json:"fatal_error"`
}

// A fatal error is why a task has failed.
type fatal struct {
	Code        string `json:"code"`
	Description string `json:"description"`
}

// faults are the codes of events of a task that do not pass by themselves:
// https://docs.globus.org/api/transfer/task_events. Globus would try again for a day.
var faults = map[string]refusedKind{
	"PERMISSION_DENIED": {fs.ErrPermission, "permission denied", false},
	"FILE_NOT_FOUND":    {fs.ErrNotExist, "no such file", false},
	"AUTH":              {backends.ErrUnauthorized, "the collection refuses the login", false},
	"NO_CREDENTIALS":    {backends.ErrUnauthorized, "the collection refuses the login", false},
	"GC_NOT_CONNECTED":  {backends.ErrUnavailable, disconnected, true},
	"GC_PAUSED":         {backends.ErrUnavailable, paused, true},
	"PAUSED":            {backends.ErrUnavailable, "the administrator of the collection has paused it", true},
}

// await waits until a task is done. One that will not go on is cancelled: what it was to do
// must not be done a day later.
func (c *client) await(ctx context.Context, task string) error {
	began := time.Now()
	for pause := c.poll; ; pause = min(2*pause, lastPoll) {
		var d taskDocument
		err := c.call(ctx, http.MethodGet, "/task/"+url.PathEscape(task), nil, nil, &d)
		if err == nil && d.DataType != "" { // not every answer says so
			err = d.is("task")
		}
		switch {
		case err != nil:
			return err
		case d.Status == "SUCCEEDED":
			return nil
		}
		if err := c.stuck(task, d); err != nil {
			return errors.Join(err, c.cancel(ctx, task, d))
		}
		if time.Since(began) > taskTime {
			return errors.Join(fmt.Errorf("%w: task %s is not done after %v", backends.ErrUnavailable, task, taskTime), c.cancel(ctx, task, d))
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// stuck returns why a task that has not succeeded will not; nil if it may.
func (c *client) stuck(task string, d taskDocument) error {
	code, detail := "", ""
	switch {
	case d.Status == "FAILED":
		code, detail = "FAILED", "it does not say why"
		if d.FatalError != nil {
			code, detail = d.FatalError.Code, d.FatalError.Description
		}
	case d.Paused:
		code = "PAUSED"
	case d.Status == "INACTIVE":
		return backends.Saying(backends.ErrUnauthorized, "task %s waits for another login: %s", task, c.loginLine())
	case d.Status != "ACTIVE":
		return fmt.Errorf("%w: a task of status %.40q", backends.ErrBadAnswer, d.Status)
	case d.NiceStatus != nil:
		code = *d.NiceStatus
	}
	f, known := faults[code]
	switch {
	case !known && d.Status != "FAILED":
		return nil // "OK", "Queued", or a fault that passes
	case !known:
		f = refusedKind{backends.ErrUnavailable, fmt.Sprintf("%.40q %.200q", code, backends.Redact(detail)), true}
	case f.sentinel == backends.ErrUnauthorized: //nolint:errorlint // it is that of the table
		f.advice += ": " + c.loginLine()
	}
	err := backends.Saying(f.sentinel, "task %s failed: %s", task, f.advice)
	if f.away {
		return backoff.Permanent(err)
	}
	return err
}

// cancel ends a task that is not at its end.
func (c *client) cancel(ctx context.Context, task string, d taskDocument) error {
	if d.Status == "FAILED" {
		return nil
	}
	var result document
	err := c.call(ctx, http.MethodPost, "/task/"+url.PathEscape(task)+"/cancel", nil, nil, &result)
	if err != nil {
		return fmt.Errorf("and it cannot be cancelled: %w", err)
	}
	return nil
}

// wait waits, unless ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// discardTime is how long an attempt to have something discarded may take.
const discardTime = 10 * time.Second

// discard has a hidden file deleted and does not wait for it. If that fails a file is left that
// no listing shows.
func (c *client) discard(ctx context.Context, p place) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	if _, err := c.submitDelete(ctx, p); err != nil {
		c.log.Warn("a hidden file is left in a Globus collection", "collection", p.endpoint, "path", p.path, "err", err)
	}
}
