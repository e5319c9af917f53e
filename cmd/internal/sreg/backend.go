// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// backendCmd has the words of sregistry for its settings file. For all else "sreg remote"
// is the better one.
func (a *app) backendCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backend",
		Short: "Show and change the settings of the sregistry client",
		Long: `Show and change the settings file of the sregistry client (~/.sregistry, or what
SREGISTRY_CLIENT_SECRETS names), which sreg and sregfs read too. "sreg remote" does
the same in the configuration of sregfs, and "sreg login" keeps passwords.`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(
		a.backendListCmd(),
		a.backendStatusCmd(),
		a.backendActivateCmd(),
		a.backendDeactivateCmd(),
		a.backendAddCmd(),
		a.backendRemoveCmd(),
		a.backendDeleteCmd(),
	)
	return cmd
}

// oldSettings calls fn with what the settings file says.
func (a *app) oldSettings(fn func(o engine.Options, top map[string]any) error) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	top, err := config.ReadSregistry(o.Inputs)
	if err != nil {
		return err
	}
	return fn(o, top)
}

// changeSettings edits the settings file, and has a running mount read it again.
func (a *app) changeSettings(ctx context.Context, what string, edit func(o engine.Options, top map[string]any) error) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	if err := config.ChangeSregistry(o.Inputs, func(top map[string]any) error { return edit(o, top) }); err != nil {
		return err
	}
	a.changed(ctx, o, config.SregistryFile(o.Inputs), what)
	return nil
}

// A setUp is a backend that is set up, for sregistry or for us.
type setUp struct {
	Name   string `json:"name"`
	Type   string `json:"type,omitempty"` // of the remote; "" if we have none of that name
	From   string `json:"from"`
	Active bool   `json:"active"`
}

func (a *app) backendListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "ls [NAME]",
		Aliases: []string{"list"},
		Short:   "List the backends that are set up, or one's settings",
		Long: `List the backends that are set up, or the settings of one in the settings file,
without its secrets.

With -o json: an array of {name, type, from, active}, or the object of settings.`,
		Args:              needArgs(0, 1),
		ValidArgsFunction: a.completeBackend,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.oldSettings(func(o engine.Options, top map[string]any) error {
				if len(args) == 1 {
					return a.printSettings(args[0], top)
				}
				return printAll(a, allOf(backendsOf(o, top)),
					column[setUp]{"BACKEND", func(b setUp) string { return b.Name }, nil},
					column[setUp]{"TYPE", func(b setUp) string { return b.Type }, nil},
					column[setUp]{"ACTIVE", func(b setUp) string { return map[bool]string{true: "active"}[b.Active] }, func(b setUp) any { return b.Active }},
					column[setUp]{"FROM", func(b setUp) string { return b.From }, nil})
			})
		},
	}
}

// backendsOf are the remotes, and what the settings file has beside them.
func backendsOf(o engine.Options, top map[string]any) []setUp {
	found := map[string]setUp{}
	for name, v := range top {
		if _, ok := v.(map[string]any); ok {
			found[name] = setUp{Name: name, From: config.SregistryFile(o.Inputs)}
		}
	}
	for _, r := range o.Settings.Remotes {
		found[r.Name] = setUp{Name: r.Name, Type: r.Type, From: r.Origin}
	}
	var sorted []setUp
	for _, name := range slices.Sorted(maps.Keys(found)) {
		b := found[name]
		b.Active = name == activeName(o)
		sorted = append(sorted, b)
	}
	return sorted
}

// activeName is the remote of a URI that names none.
func activeName(o engine.Options) string {
	if o.Settings.Default == "" {
		return config.Local
	}
	return o.Settings.Default
}

// secretName matches settings that are nobody else's business.
var secretName = regexp.MustCompile(`(?i)token|passw|secret|key|response|credential`)

func (a *app) printSettings(name string, top map[string]any) error {
	table, err := settingsOf(top, name)
	if err != nil {
		return err
	}
	shown := maps.Clone(table)
	for key := range shown {
		if secretName.MatchString(key) {
			shown[key] = "(not shown)"
		}
	}
	return a.printJSON(shown)
}

func settingsOf(top map[string]any, name string) (map[string]any, error) {
	table, ok := top[name].(map[string]any)
	if !ok {
		return nil, backends.NotFound("the settings file has no backend %q%s", name, backends.DidYouMean(name, slices.Collect(maps.Keys(top))))
	}
	return table, nil
}

func (a *app) backendStatusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the settings file, and which backend is active",
		Long: `Show the settings file, and which backend is active: the remote of a URI that names
none.

With -o json: {file, backends, active}.`,
		Args: needArgs(0, 0),
		RunE: func(*cobra.Command, []string) error {
			return a.oldSettings(func(o engine.Options, top map[string]any) error {
				n := 0
				for _, v := range top {
					if _, ok := v.(map[string]any); ok {
						n++
					}
				}
				file := config.SregistryFile(o.Inputs)
				if a.format == asJSON {
					return a.printJSON(map[string]any{"file": file, "backends": n, "active": activeName(o)})
				}
				t := newTable(a.out)
				t.row("file", file)
				t.row("backends", fmt.Sprint(n))
				t.row("active", activeName(o))
				return t.flush()
			})
		},
	}
}

func (a *app) backendActivateCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "activate NAME",
		Short: "Make a backend the one of URIs that name none",
		Long: `Make a backend, or a remote, the one of URIs that name none, for sreg and for
sregistry. The variable SREGISTRY_CLIENT goes before it.`,
		Args:              needArgs(1, 1),
		ValidArgsFunction: a.completeBackend,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSettings(cmd.Context(), args[0]+" is active", func(o engine.Options, top map[string]any) error {
				if err := knownBackend(o, args[0]); err != nil {
					return err
				}
				top[config.Active] = args[0]
				if by := a.getenv(config.Active); by != "" && by != args[0] {
					a.notice(fmt.Sprintf("%s=%s in the environment goes before it", config.Active, by))
				}
				return nil
			})
		},
	}
}

// knownBackend fails for a name that neither is a remote's nor could become one's.
func knownBackend(o engine.Options, name string) error {
	var known []string
	for _, r := range o.Settings.Remotes {
		known = append(known, r.Name)
	}
	for _, c := range all.SregistryClients {
		known = append(known, c.Name)
	}
	if !slices.Contains(known, name) {
		return backends.NotFound("there is no backend %q%s", name, backends.DidYouMean(name, known))
	}
	return nil
}

func (a *app) backendDeactivateCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "deactivate",
		Short: "Make no backend the active one",
		Args:  needArgs(0, 1), // sregistry ignores a name
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changeSettings(cmd.Context(), "no backend is active", func(_ engine.Options, top map[string]any) error {
				if _, ok := top[config.Active]; !ok {
					return backends.NotFound("no backend is active")
				}
				delete(top, config.Active)
				return nil
			})
		},
	}
}

func (a *app) backendAddCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "add NAME VARIABLE [VALUE]",
		Short: "Set a variable of a backend",
		Long: `Set a variable of a backend in the settings file: SREGISTRY_NAME_VARIABLE. A name
that already begins with SREGISTRY_, AWS_ or GOOGLE_ is taken as it is.

Without a VALUE you are asked for it, or it is read from the standard input: others
can see a command line.`,
		Example: "  pass show ngc | sreg backend add nvidia token",
		Args:    needArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, variable := args[0], variableOf(args[0], args[1])
			value := strings.Join(args[2:], "")
			if len(args) == 2 {
				var err error
				if value, err = a.askValue(cmd.Context(), variable); err != nil {
					return err
				}
			}
			return a.changeSettings(cmd.Context(), variable+" is set", func(o engine.Options, top map[string]any) error {
				if err := knownBackend(o, name); err != nil {
					return err
				}
				table, ok := top[name].(map[string]any)
				if !ok {
					table = map[string]any{}
					top[name] = table
				}
				if _, ok := table[variable]; ok && !force {
					return fmt.Errorf("%s is set already: --force replaces it", variable)
				}
				table[variable] = value
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace the value that is set")
	return cmd
}

// askValue reads what others should not see: they can see a command line.
func (a *app) askValue(ctx context.Context, what string) (string, error) {
	if term.Is(a.in) {
		return a.askSecret(ctx, what+": ")
	}
	return a.readAll(ctx)
}

// variableOf returns the variable of a backend that a user calls "token".
func variableOf(backend, name string) string {
	upper := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
	name = upper(name)
	for _, whole := range []string{"SREGISTRY_", "AWS_", "GOOGLE_"} {
		if strings.HasPrefix(name, whole) {
			return name
		}
	}
	return "SREGISTRY_" + upper(backend) + "_" + name
}

func (a *app) backendRemoveCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME VARIABLE",
		Aliases: []string{"remove"},
		Short:   "Unset a variable of a backend",
		Long: `Remove a variable of a backend from the settings file, by the names that "sreg
backend add" takes. The other lines stay as they are.`,
		Args: needArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			variable := variableOf(args[0], args[1])
			return a.changeSettings(cmd.Context(), variable+" is not set any more", func(_ engine.Options, top map[string]any) error {
				table, err := settingsOf(top, args[0])
				if err != nil {
					return err
				}
				for _, key := range []string{variable, args[1]} {
					if _, ok := table[key]; ok {
						delete(table, key)
						return nil
					}
				}
				return backends.NotFound("%s has no %s%s", args[0], variable, backends.DidYouMean(variable, slices.Collect(maps.Keys(table))))
			})
		},
		ValidArgsFunction: a.completeBackend,
	}
}

func (a *app) backendDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove all settings of a backend",
		Long: `Remove all settings of a backend from the settings file, its login among them. Its
images stay, and so does what the environment and the configuration of sregfs say.`,
		Args:              needArgs(1, 1),
		ValidArgsFunction: a.completeBackend,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSettings(cmd.Context(), args[0]+" is set up no more", func(_ engine.Options, top map[string]any) error {
				if _, err := settingsOf(top, args[0]); err != nil {
					return err
				}
				delete(top, args[0])
				if top[config.Active] == args[0] {
					delete(top, config.Active)
				}
				return nil
			})
		},
	}
}

// completeBackend offers the backends that are set up.
func (a *app) completeBackend(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.quiet = true
	var names []string
	if len(args) == 0 {
		_ = a.oldSettings(func(o engine.Options, top map[string]any) error {
			for _, b := range backendsOf(o, top) {
				names = append(names, b.Name)
			}
			return nil
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
