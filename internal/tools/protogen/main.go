// Command protogen writes the Go code of protobuf files: what protoc does,
// without protoc. The files named are relative to the directory -C, and so is
// what is written, by the path of go_package without -module.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	dir := flag.String("dir", ".", "directory of the files")
	module := flag.String("module", "", "prefix of go_package that stands for the directory")
	flag.Parse()
	if err := run(*dir, *module, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(dir, module string, files []string) error {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := c.Compile(context.Background(), files...)
	if err != nil {
		return err
	}
	param := "module=" + module
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: files, Parameter: &param}
	for _, f := range compiled {
		if n := f.Imports().Len(); n > 0 {
			return fmt.Errorf("%s imports %d files: this generator takes none", f.Path(), n)
		}
		req.ProtoFile = append(req.ProtoFile, protodesc.ToFileDescriptorProto(f))
	}
	for i, f := range compiled { // with comments
		if p, ok := f.(interface {
			FileDescriptorProto() *descriptorpb.FileDescriptorProto
		}); ok {
			req.ProtoFile[i] = p.FileDescriptorProto()
		}
	}
	in, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		cmd := exec.Command("go", "tool", plugin)
		cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
		var reply pluginpb.CodeGeneratorResponse
		if err := proto.Unmarshal(out, &reply); err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
		if reply.Error != nil {
			return fmt.Errorf("%s: %s", plugin, *reply.Error)
		}
		for _, f := range reply.File {
			name := filepath.Join(dir, f.GetName())
			if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
				return err
			}
			if err := os.WriteFile(name, []byte(f.GetContent()), 0o666); err != nil {
				return err
			}
		}
	}
	return nil
}
