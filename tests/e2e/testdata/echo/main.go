// Command echo writes its input to its output and exits with 7.
package main

import (
	"context"
	"io"
	"os"

	"github.com/wray-project/wray/sdk"
)

func main() {
	sdk.Main(func(context.Context) error {
		_, err := io.Copy(os.Stdout, os.Stdin)
		if err == nil {
			os.Exit(7)
		}
		return err
	})
}
