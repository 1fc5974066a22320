package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/wasm/abi"
)

// version is set by the linker in releases.
var version = ""

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				ABI     int    `json:"abi"`
				Engine  string `json:"engine"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{programVersion(), abi.Version, sandbox.Identity(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if asJSON {
				return newJSON(cmd.OutOrStdout()).Encode(v)
			}
			_, err := io.WriteString(cmd.OutOrStdout(), versionLine())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func versionLine() string {
	return fmt.Sprintf("wray %s, %s_%s, %s, abi %d\n", programVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version(), abi.Version)
}

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12]
			}
		}
		if v := info.Main.Version; v != "" && v != "(devel)" {
			return v
		}
	}
	return "dev"
}
