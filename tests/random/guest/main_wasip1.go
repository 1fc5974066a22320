package main

import "github.com/wray-project/wray/sdk"

func main() { sdk.Main(run) }
