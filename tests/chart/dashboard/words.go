package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
)

// words are those that each of Grafana's string types has constants for, by the type's name. When a program runs, Go no
// longer knows them; its source does.
type words map[string]map[string]bool

func readWords(types string) (words, error) {
	files, err := filepath.Glob(filepath.Join(types, "*", "types_gen.go"))
	if err != nil {
		return nil, err
	}
	found := words{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(parsed, func(node ast.Node) bool {
			if constant, isValue := node.(*ast.ValueSpec); isValue {
				found.add(parsed.Name.Name, constant)
			}
			return true
		})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no types are there", types)
	}
	return found, nil
}

func (words words) add(folder string, constant *ast.ValueSpec) {
	name, isNamed := constant.Type.(*ast.Ident)
	if !isNamed {
		return
	}
	for _, value := range constant.Values {
		literal, isLiteral := value.(*ast.BasicLit)
		if !isLiteral || literal.Kind != token.STRING {
			continue
		}
		if word, err := strconv.Unquote(literal.Value); err == nil {
			key := folder + "." + name.Name
			if words[key] == nil {
				words[key] = map[string]bool{}
			}
			words[key][word] = true
		}
	}
}

func (words words) check(value any) error {
	return errors.Join(words.walk("dashboard", reflect.ValueOf(value))...)
}

func (words words) walk(path string, value reflect.Value) (wrong []error) {
	switch value.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !value.IsNil() {
			wrong = words.walk(path, value.Elem())
		}
	case reflect.Slice:
		for index := range value.Len() {
			wrong = append(wrong, words.walk(fmt.Sprintf("%s[%d]", path, index), value.Index(index))...)
		}
	case reflect.Struct:
		for index := range value.NumField() {
			name, _, _ := strings.Cut(value.Type().Field(index).Tag.Get("json"), ",")
			wrong = append(wrong, words.walk(path+"."+name, value.Field(index))...)
		}
	case reflect.String:
		known, hasWords := words[value.Type().String()]
		// What is empty was not there.
		if word := value.String(); hasWords && word != "" && !known[word] {
			wrong = append(wrong, fmt.Errorf("%s: %q is none of the words of %s", path, word, value.Type()))
		}
	}
	return wrong
}
