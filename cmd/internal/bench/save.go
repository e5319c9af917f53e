// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// A record is a result as it is kept in a file, so that the report can be made
// again without measuring.
type record struct {
	Suite, Name, Subject, Unit string
	Lower                      bool      `json:",omitempty"`
	Runs                       []float64 `json:",omitempty"`
	Base, Target               string    `json:",omitempty"`
	Goal                       float64   `json:",omitempty"`
	Met                        *bool     `json:",omitempty"`
}

type saved struct {
	Machine machine
	Runs    int
	Size    int64
	Results []record
	Notes   []note
}

// save writes everything that was added so far.
func (b *bench) save(path string, m machine) error {
	s := saved{Machine: m, Runs: b.runs, Size: b.size, Notes: b.notes}
	for _, r := range b.results {
		s.Results = append(s.Results, record{
			r.suite, r.name, r.subject, r.unit, r.lower, r.runs, r.base, r.target, r.goal, r.met,
		})
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// load reads what save wrote.
func load(path string) (*bench, machine, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, machine{}, err
	}
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, machine{}, err
	}
	b := &bench{runs: s.Runs, size: s.Size, notes: s.Notes}
	for _, r := range s.Results {
		b.results = append(b.results, &result{
			r.Suite, r.Name, r.Subject, r.Unit, r.Lower, r.Runs, r.Base, r.Target, r.Met, r.Goal,
		})
	}
	return b, s.Machine, nil
}
